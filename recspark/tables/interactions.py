"""interactions: who did what with which item in which scenario, one row a key; and where every raw row went."""

from dataclasses import dataclass, field
from datetime import date

from recspark import columns as c
from recspark.errors import DataError
from recspark.warehouse.store import Table

KEY = (c.SCENARIO, c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT)
TABLE = Table(
    noun="interactions",
    ddl=f"{c.SCENARIO} string, {c.USER_ID} string, {c.ITEM_ID} string, {c.EVENT_TIME} timestamp, {c.EVENT} string, "
    f"{c.VALUE} double, {c.CONTEXT} map<string,string>, {c.EVENT_DATE} date",
    key=KEY,
)


@dataclass(frozen=True)
class Counts:
    """Where every raw row went: raw = accepted + merged + rejected + duplicates + later."""

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
        """Raises DataError when a row got lost or was counted twice, as when the files changed during the run."""
        found = self.accepted + self.merged + sum(self.rejected.values()) + self.duplicates + self.later
        if found != self.raw:
            raise DataError(f"interactions: counts do not add up: {self}; did the raw files change? Run it again")


def changed_days(new: dict[str, str], old: dict[str, str], run_date: date) -> list[str]:
    """Days before run_date that were added, changed or are gone."""
    days = {*new, *(day for day in old if day < run_date.isoformat())}
    return sorted(day for day in days if new.get(day) != old.get(day))
