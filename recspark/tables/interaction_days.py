"""interaction_days: what each raw day was like and became, so that a night need only work on the days that changed.

A row is a day of raw events before run_date; the one without a date has the rows whose time nobody can read. All days
fit on the driver: a few numbers each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config import Config
from recspark.tables.events import COPIES, DISTINCT, LATER, OK, STATE
from recspark.tables.store import Store, Table, rows_hash

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


@dataclass(frozen=True)
class Raw:
    """The days of a raw snapshot before run_date (accepted rows not yet looked at), and what is later."""

    days: dict[date | None, Day]
    later: int
    first_later: object


def raw_days(parsed: DataFrame) -> Raw:
    """One pass over parsed rows; a row a day and state comes to the driver."""
    hashed = F.sum(F.xxhash64(c.ROW_HASH, STATE).cast("decimal(38,0)")).alias("hash")
    by = parsed.groupBy(F.to_date(c.EVENT_TIME).alias("day"), STATE)
    found = by.agg(F.count("*").alias("n"), hashed, F.min(c.EVENT_TIME).alias("first")).collect()
    later = [row for row in found if row[STATE] == LATER]
    states: dict[date | None, list[Row]] = {}
    for row in found:
        if row[STATE] != LATER:
            states.setdefault(row.day, []).append(row)
    days = {
        day: Day(
            raw=sum(row.n for row in rows),
            rejected={row[STATE]: row.n for row in sorted(rows, key=lambda row: row[STATE]) if row[STATE] != OK},
            raw_hash=str(sum(row.hash for row in rows)),
        )
        for day, rows in states.items()
    }
    return Raw(days, sum(row.n for row in later), min((row["first"] for row in later), default=None))


def merged_days(merged: DataFrame) -> dict[date | None, Day]:
    """What the rows of `events.merge` say of their days."""
    total = merged.groupBy(c.EVENT_DATE).agg(
        F.count("*").alias("n"),
        F.sum(COPIES).alias("copies"),
        F.sum(DISTINCT).alias("distinct"),
        rows_hash(merged.drop(COPIES, DISTINCT)).alias("hash"),
    )
    return {
        row[c.EVENT_DATE]: Day(
            accepted=row.n,
            merged=row.distinct - row.n,
            duplicates=row.copies - row.distinct,
            rows_hash=str(row.hash),
        )
        for row in total.collect()
    }


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
