"""interactions: who did what with which item in which scenario, one row a key; and how many raw rows became what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.errors import ConfigError, DataError
from recspark.warehouse.store import Table

Weights = Mapping[str, float | str]  # event -> its weight, a number or Spark SQL
MOST_WEIGHT = 1e30  # as the largest value of an event; NaN is above it in Spark
KEY = (c.SCENARIO, c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT)
TABLE = Table(
    noun="interactions",
    ddl=f"{c.SCENARIO} string, {c.USER_ID} string, {c.ITEM_ID} string, {c.EVENT_TIME} timestamp, {c.EVENT} string, "
    f"{c.VALUE} double, {c.CONTEXT} map<string,string>, {c.EVENT_DATE} date",
    key=KEY,
    row="Who did what with which item in which scenario; accepted events of any day that a night has read.",
)


def event_weight(events: DataFrame, weights: Weights) -> Column:
    """The weight of the event of each row of `events`, never null: as configured, 1 where its name is not in the
    configuration. `events` may have more columns than the table.

    Raises: ConfigError and SchemaError for an expression that is no number of one event.
    """
    named = [F.when(F.col(c.EVENT) == name, _weight(events, name, weights[name])) for name in sorted(weights)]
    return F.coalesce(*named, F.lit(1.0)) if named else F.lit(1.0)


def _weight(events: DataFrame, event: str, weight: float | str) -> Column:
    if not isinstance(weight, str):
        return F.lit(weight)
    key = f"interactions.event_weights.{event}"
    value = expressions.column(events, weight, "number", key, "the table interactions")
    try:
        events.groupBy(c.EVENT).agg(F.sum(value))  # not of one event: an aggregate, a window, a random number
    except AnalysisException as error:
        raise ConfigError(
            f"{key}: `{weight}` is not the weight of one event ({expressions.first_line(error)}); expected an "
            "expression over its columns, such as `value - 3`"
        ) from None
    return F.when((value > 0) & (value <= F.lit(MOST_WEIGHT)), value).otherwise(F.lit(0.0))


@dataclass(frozen=True)
class Counts:
    """How many raw rows became what: raw = accepted + merged + rejected + duplicates + later."""

    raw: int
    accepted: int
    merged: int
    duplicates: int
    later: int
    rejected: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rejected = sum(self.rejected.values())
        return (
            f"{self.raw} raw = {self.accepted} accepted + {self.merged} merged + {rejected} rejected "
            f"+ {self.duplicates} duplicates + {self.later} later"
        )

    def check(self) -> None:
        """Raises DataError when the counts do not add up, for example since the files changed during the run."""
        found = self.accepted + self.merged + sum(self.rejected.values()) + self.duplicates + self.later
        if found != self.raw:
            raise DataError(
                f"interactions: counts do not add up: {self}, but the parts sum to {found}; the raw files may have "
                "changed during the run: run it again"
            )


def changed_days(new: dict[str, str], old: dict[str, str], run_date: date) -> list[str]:
    """The days before run_date whose digest differs: added, changed or removed ones."""
    days = {*new, *(day for day in old if day < run_date.isoformat())}
    return sorted(day for day in days if new.get(day) != old.get(day))
