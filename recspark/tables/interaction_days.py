"""interaction_days: what each raw day was like and became, so that a night need only work on the days that changed.

A row is a day of raw events before run_date; the one without a date has the rows whose time nobody can read. All days
fit on the driver: a few numbers each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from recspark import columns as c
from recspark.config.schema import Config
from recspark.warehouse.store import Store, Table

TABLE = Table(
    noun="interaction_days",
    ddl=f"{c.EVENT_DATE} date, raw bigint, accepted bigint, merged bigint, duplicates bigint, "
    "rejected map<string,bigint>, raw_hash string, rows_hash string",
    key=(c.EVENT_DATE,),
)
OF, SETTINGS = "of", "settings"  # in a commit's metadata: the version of interactions, and how its rows were read


@dataclass(frozen=True)
class Day:
    """raw = accepted + merged + duplicates + rejected. The hashes are of content, whatever the order of rows."""

    raw: int = 0
    accepted: int = 0
    merged: int = 0
    duplicates: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    raw_hash: str = ""
    rows_hash: str = ""

    def of(self, merged: "Day | None") -> "Day":
        """This raw day with what `merged_days` found of it."""
        if merged is None:
            return self
        numbers = {name: getattr(merged, name) for name in ("accepted", "merged", "duplicates", "rows_hash")}
        return replace(self, **numbers)


def digests(days: Mapping[date | None, Day]) -> dict[str, str]:
    """Of the days with accepted rows, as `store.day_digests` says it of a table that has them."""
    return {str(day): f"{found.accepted}:{found.rows_hash}" for day, found in days.items() if found.accepted}


def from_digests(found: Mapping[str, str], before: Mapping[date | None, Day]) -> dict[date | None, Day]:
    """The days of `digests`, with what is known of them; of others only the rows are, so they will be built again."""
    days = {date.fromisoformat(day): digest.split(":") for day, digest in found.items()}
    return {day: before.get(day, Day(accepted=int(n), rows_hash=h)) for day, (n, h) in days.items()}


def read(store: Store, config: Config, interactions: Table) -> dict[date | None, Day]:
    """The days that `interactions` now consists of; none where it was changed since, or read in another way."""
    if not store.exists(TABLE) or not store.exists(interactions):
        return {}
    stamp = store.stamp(TABLE) or {}
    if (stamp.get(OF), stamp.get(SETTINGS)) != (store.token(interactions), _settings(store, config)):
        return {}
    return {row[c.EVENT_DATE]: Day(*row[1:]) for row in store.read(TABLE).collect()}


def write(store: Store, config: Config, interactions: Table, days: Mapping[date | None, Day]) -> None:
    """After `interactions`: if a crash comes between, the next night does these days again."""
    rows = [(day, *vars(found).values()) for day, found in sorted(days.items(), key=str)]
    frame = store.spark.createDataFrame(rows, TABLE.schema).coalesce(1)
    store.replace(TABLE, frame, metadata={OF: store.token(interactions), SETTINGS: _settings(store, config)})


def _settings(store: Store, config: Config) -> str:
    return store.fingerprint(config.digest("source", "interactions"))
