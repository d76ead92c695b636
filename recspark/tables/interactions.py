"""interactions: who did what with which item in which scenario, one row a key; and what of the raw rows was rejected.

A raw snapshot is the truth about all days before run_date: each night builds those days from it and replaces only the
days whose content changed. So a late event arrives with the next run, days that the snapshot no longer has (an erased
user, a corrected feed) disappear, the same snapshot commits nothing, and days from run_date on are left as they are.
"""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config import Config, InteractionSource, Source
from recspark.errors import ConfigError, DataError, SchemaError
from recspark.summary import Summary
from recspark.tables import catalogue, index, raw, users
from recspark.tables.events import COPIES, DISTINCT, KEY, LATER, OK, SECTION, STATE, merge, parse
from recspark.tables.store import Store, Table, day_digests
from recspark.tables.users import eligible_users

log = logging.getLogger(__name__)

TABLE = Table(
    noun="interactions",
    ddl=f"{c.SCENARIO} string, {c.USER_ID} string, {c.ITEM_ID} string, {c.EVENT_TIME} timestamp, {c.EVENT} string, "
    f"{c.VALUE} double, {c.CONTEXT} map<string,string>, {c.EVENT_DATE} date",
    key=KEY,
)
REJECTED = Table(
    noun="rejected_events",
    ddl=f"{c.RUN_DATE} date, {c.REASON} string, {c.ROW_HASH} bigint, {c.RAW} string",
    key=(c.ROW_HASH,),
)

ROWS_A_FILE = 5_000_000  # near 100 MB


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


@dataclass(frozen=True)
class Built:
    """What one raw snapshot holds before run_date; the frames are valid inside `building` only."""

    accepted: DataFrame  # TABLE's columns
    rejected: DataFrame  # REJECTED's columns, identical raw rows once
    counts: Counts
    days: dict[str, str]  # day -> digest of its accepted rows


@contextmanager
def building(
    rows: DataFrame, source: InteractionSource, run_date: date, known_items: DataFrame | None = None
) -> Iterator[Built]:
    """Sort the raw rows into accepted, merged, rejected, duplicates and later ones, reading them once.

    `known_items` (item_id, unique): when given, other items are rejected.
    Raises SchemaError and ConfigError for wrong expressions, DataError when no row before run_date is usable.
    """
    parsed = parse(rows, source, run_date, known_items).persist()
    merged = merge(parsed, tuple(source.context)).persist()
    try:
        states = parsed.groupBy(STATE).agg(F.count("*").alias("n"), F.min(c.EVENT_TIME).alias("first")).collect()
        accepted = merged.select(TABLE.columns)
        days = day_digests(accepted, c.EVENT_DATE)
        counts = _count({row[STATE]: row.n for row in states}, merged, days)
        counts.check()
        _require_accepted(counts, run_date, next((row.first for row in states if row[STATE] == LATER), None))
        yield Built(accepted, rejected(parsed, run_date), counts, days)
    finally:
        merged.unpersist()
        parsed.unpersist()


def rejected(parsed: DataFrame, run_date: date) -> DataFrame:
    """The rejected rows in REJECTED's columns. Identical raw rows are one row here, though each of them is counted."""
    bad = parsed.where(~F.col(STATE).isin(OK, LATER)).groupBy(c.ROW_HASH)
    rows = bad.agg(F.min(STATE).alias(c.REASON), F.min(c.RAW).alias(c.RAW))
    return rows.select(F.lit(run_date).alias(c.RUN_DATE), c.REASON, c.ROW_HASH, c.RAW)


def changed_days(new: dict[str, str], old: dict[str, str], run_date: date) -> list[str]:
    """Days before run_date that were added, changed or are gone."""
    days = {*new, *(day for day in old if day < run_date.isoformat())}
    return sorted(day for day in days if new.get(day) != old.get(day))


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Bring interactions, rejected_events, user_index and scenario_index up to the present raw snapshot."""
    fingerprint = _fingerprint(store, config, run_date)
    indexed = store.exists(index.USER_INDEX) and store.exists(index.SCENARIO_INDEX)
    if not force and indexed and store.is_fresh(TABLE, fingerprint):
        stamp = store.stamp(TABLE) or {}
        return Summary(TABLE.noun, skipped=True, note=stamp.get("counts", ""), version=stamp.get("version"))
    source = config.source.interactions
    known = catalogue.known(store.spark, config, run_date) if config.interactions.unknown_items == "reject" else None
    with building(raw.read(store.spark, source, SECTION), source, run_date, known) as built:
        log.info("%s", built.counts)
        user_ids, scenarios = _people(store, config, built.accepted)
        index.refresh(store, index.USER_INDEX, user_ids)
        index.refresh(store, index.SCENARIO_INDEX, scenarios)
        _add_rejected(store, built)
        version = _replace_days(store, built, run_date, {"fingerprint": fingerprint, "counts": str(built.counts)})
        counts = built.counts
    return Summary(TABLE.noun, counts.raw, counts.accepted, counts.rejected, note=str(counts), version=version)


def _count(states: dict[str, int], merged: DataFrame, days: dict[str, str]) -> Counts:
    """The raw side is counted on the parsed rows, the accepted side on the merged ones, so that a loss shows."""
    total = merged.agg(F.sum(COPIES).alias("copies"), F.sum(DISTINCT).alias("distinct")).first()
    copies, distinct = total.copies or 0, total.distinct or 0
    accepted = sum(int(digest.split(":")[0]) for digest in days.values())
    reasons = {state: n for state, n in sorted(states.items()) if state not in (OK, LATER)}
    return Counts(sum(states.values()), accepted, distinct - accepted, copies - distinct, states.get(LATER, 0), reasons)


def _require_accepted(counts: Counts, run_date: date, first_later: object) -> None:
    if counts.accepted:
        return
    for reason, n in counts.rejected.items():
        if reason.startswith("unparsable") and n == counts.raw:
            name = reason.split()[1]
            expected = raw.EXPECTED["time" if name == c.EVENT_TIME else "number"]
            raise SchemaError(f"{SECTION}.{name}: none of {n} rows could be cast; expected {expected}")
    if counts.later and not counts.rejected:
        raise DataError(f"no event before run_date {run_date}; the first is at {first_later}: give a later --run-date")
    reasons = ", ".join(f"{reason}: {n}" for reason, n in counts.rejected.items())
    raise DataError(f"{SECTION}: no usable row before run_date {run_date} ({counts}; {reasons}); mend the expressions")


def _fingerprint(store: Store, config: Config, run_date: date) -> str:
    if config.interactions.unknown_items == "reject" and config.source.items is None:
        raise ConfigError("interactions.unknown_items: reject needs source.items; add it, or set `keep`")
    sources: dict[str, Source | None] = {SECTION: config.source.interactions, users.SECTION: config.source.users}
    if config.interactions.unknown_items == "reject":
        sources[catalogue.SECTION] = config.source.items
    found = [raw.fingerprint(store.spark, source, name) for name, source in sources.items() if source is not None]
    return store.fingerprint(config.digest("source", "interactions"), run_date, *found)


def _people(store: Store, config: Config, accepted: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The ids of users and scenarios, from the events and from source.users."""
    people = accepted.select(c.SCENARIO, c.USER_ID)
    if config.source.users is not None:
        people = people.union(eligible_users(store, config))
    return people.select(c.USER_ID), people.select(c.SCENARIO)


def _add_rejected(store: Store, built: Built) -> None:
    """Append the rejected rows that the table lacks; those it has keep the run_date that first met them."""
    rows = built.rejected
    if store.exists(REJECTED):
        known = store.read(REJECTED).select(c.ROW_HASH)
        rows = rows.join(known, on=c.ROW_HASH, how="left_anti").select(REJECTED.columns)
    rows = rows.coalesce(_num_files(sum(built.counts.rejected.values()))).persist()
    if not store.exists(REJECTED) or not rows.isEmpty():
        store.append(REJECTED, rows)
    rows.unpersist()


def _replace_days(store: Store, built: Built, run_date: date, metadata: dict[str, str]) -> int:
    """Write the days that changed; returns the version that readers see."""
    exists = store.exists(TABLE)
    old = day_digests(store.read(TABLE), c.EVENT_DATE) if exists else {}
    days = changed_days(built.days, old, run_date)
    later = {day: digest for day, digest in old.items() if day >= run_date.isoformat()}
    if not days:
        store.remember_days(TABLE, old)
        return store.version(TABLE)
    gone = [day for day in days if day not in built.days]
    if gone:
        log.warning("%d days (%s to %s) left the raw snapshot and are removed", len(gone), gone[0], gone[-1])
    rows = sum(int(built.days[day].split(":")[0]) for day in days if day in built.days)
    where = f"{c.EVENT_DATE} IN ({', '.join(f'DATE{day!r}' for day in days)})" if exists else None
    changed = built.accepted.where(where) if where else built.accepted
    files = _num_files(rows)
    ranged = changed.repartitionByRange(files, c.EVENT_DATE) if files > 1 else changed.coalesce(1)
    ordered = ranged.sortWithinPartitions(c.EVENT_DATE, *KEY)
    version = store.replace(TABLE, ordered.select(TABLE.columns), where=where, metadata=metadata)
    store.remember_days(TABLE, {**built.days, **later})
    return version


def _num_files(rows: int) -> int:
    return max(1, math.ceil(rows / ROWS_A_FILE))
