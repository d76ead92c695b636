"""interactions: who did what with which item in which scenario, one row a key; and how many raw rows became what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from pyspark.sql import Column
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.errors import DataError
from recspark.warehouse.store import Table

KEY = (c.SCENARIO, c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT)
TABLE = Table(
    noun="interactions",
    ddl=f"{c.SCENARIO} string, {c.USER_ID} string, {c.ITEM_ID} string, {c.EVENT_TIME} timestamp, {c.EVENT} string, "
    f"{c.VALUE} double, {c.CONTEXT} map<string,string>, {c.EVENT_DATE} date",
    key=KEY,
    row="Who did what with which item in which scenario; accepted events of any day that a night has read.",
)


def event_weight(weights: Mapping[str, float]) -> Column:
    """The weight of a row's event: as configured, 1 where its name is not in the configuration."""
    named = [F.when(F.col(c.EVENT) == name, F.lit(float(weight))) for name, weight in sorted(weights.items())]
    return F.coalesce(*named, F.lit(1.0)) if named else F.lit(1.0)


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
