"""interaction_days: counts and hashes of each raw day, so that a night works only on the days that changed.

A row is a day of raw events before run_date; the row without a date has the raw rows whose time cannot be read. All
days fit on the driver: a few numbers each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from recspark import columns as c
from recspark.warehouse.store import Store, Table

TABLE = Table(
    noun="interaction_days",
    ddl=f"{c.EVENT_DATE} date, raw bigint, accepted bigint, merged bigint, duplicates bigint, "
    "rejected map<string,bigint>, raw_hash string, rows_hash string",
    key=(c.EVENT_DATE,),
    row="A day of raw events before run_date: raw = accepted + merged + duplicates + rejected. Null: no readable time.",
    comments={
        "raw": "Raw rows of the day. Example: 3108",
        "accepted": "Rows of interactions. Example: 1942",
        "merged": "Rows with the same key as an accepted one and another value. Example: 18",
        "duplicates": "Rows equal to an accepted one. Example: 26",
        "rejected": "Reason -> rows in rejected_events. Example: {null user_id -> 1122}",
        "raw_hash": "Hash of the raw rows: a day that did not change is not read again.",
        "rows_hash": "Hash of the accepted rows.",
    },
)
OF, SETTINGS = "of", "settings"  # in a commit's metadata: the version of interactions, and the hash of its settings


@dataclass(frozen=True)
class Day:
    """The rows of one day: raw = accepted + merged + duplicates + rejected. The hashes are of the content; the order of
    rows does not matter."""

    raw: int = 0
    accepted: int = 0
    merged: int = 0
    duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    raw_hash: str = ""
    rows_hash: str = ""

    def of(self, merged: "Day | None") -> "Day":
        """This raw day with the numbers that `merged_days` counted for it."""
        if merged is None:
            return self
        numbers = {name: getattr(merged, name) for name in ("accepted", "merged", "duplicates", "rows_hash")}
        return replace(self, **numbers)


def digests(days: Mapping[date | None, Day]) -> dict[str, str]:
    """The same as `store.day_digests` of a table with these days; days without accepted rows are left out."""
    return {str(day): f"{found.accepted}:{found.rows_hash}" for day, found in days.items() if found.accepted}


def from_digests(found: Mapping[str, str], before: Mapping[date | None, Day]) -> dict[date | None, Day]:
    """The days of `found` (of `digests`), from `before` where they are there; others have no raw hash, so they will be
    built again."""
    days = {date.fromisoformat(day): digest.split(":") for day, digest in found.items()}
    return {day: before.get(day, Day(accepted=int(n), rows_hash=h)) for day, (n, h) in days.items()}


def is_of(store: Store, settings: str, interactions: Table) -> bool:
    """Are these the days of the table `interactions` as it is, built with these settings?"""
    if not store.exists(TABLE) or not store.exists(interactions):
        return False
    stamp = store.stamp(TABLE) or {}
    return (stamp.get(OF), stamp.get(SETTINGS)) == (store.token(interactions), settings)


def read(store: Store, settings: str, interactions: Table) -> dict[date | None, Day]:
    """The days of the table `interactions`; none if it changed since, or was built with other settings."""
    if not is_of(store, settings, interactions):
        return {}
    return {row[c.EVENT_DATE]: Day(*row[1:]) for row in store.read(TABLE).collect()}


def write(store: Store, settings: str, interactions: Table, days: Mapping[date | None, Day]) -> None:
    """Write the days, after `interactions`: after a crash between the two, the next night builds these days again."""
    rows = [(day, *vars(found).values()) for day, found in sorted(days.items(), key=str)]
    frame = store.spark.createDataFrame(rows, TABLE.schema).coalesce(1)
    store.replace(TABLE, frame, metadata={OF: store.token(interactions), SETTINGS: settings})
