"""interactions: raw events to accepted ones, and what of the raw rows was rejected.

A raw snapshot is the truth about all days before run_date: each night hashes its rows, builds the days whose raw rows
changed, and replaces those whose events did. So a late event arrives with the next run, days that the snapshot no
longer has (an erased user, a corrected feed) disappear, the same snapshot commits nothing, and days from run_date on
are left as they are.
"""

import logging
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config, InteractionSource, Source
from recspark.errors import ConfigError, DataError, SchemaError
from recspark.sources import catalogue, raw, users
from recspark.sources.events import LATER, OK, SECTION, STATE, merge, merged_days, parse, raw_days
from recspark.sources.users import eligible_users
from recspark.summary import Summary
from recspark.tables import index, interaction_days, rejected_events
from recspark.tables.interaction_days import Day, digests, from_digests
from recspark.tables.interactions import KEY, TABLE, Counts, changed_days
from recspark.warehouse.store import Store, day_digests

log = logging.getLogger(__name__)

ROWS_A_FILE = 5_000_000  # near 100 MB


@dataclass(frozen=True)
class Built:
    """What one raw snapshot holds before run_date; the frames are valid inside `building` only."""

    accepted: DataFrame  # TABLE's columns; of the days that changed
    rejected: DataFrame  # columns of rejected_events, identical raw rows once; of the days that changed
    counts: Counts  # of all days
    days: dict[date | None, Day]


@contextmanager
def building(
    rows: DataFrame,
    source: InteractionSource,
    run_date: date,
    known_items: DataFrame | None = None,
    before: Mapping[date | None, Day] = MappingProxyType({}),
) -> Iterator[Built]:
    """Sort the raw rows into accepted, merged, rejected, duplicates and later ones.

    `known_items` (item_id, unique): when given, other items are rejected. `before`: days that were built already; those
    whose raw rows are the same are not built again. Raw rows are read once without it, else twice.
    Raises SchemaError and ConfigError for wrong expressions, DataError when no row before run_date is usable.
    """
    parsed = parse(rows, source, run_date, known_items)
    if not before:
        parsed = parsed.persist()
    found = raw_days(parsed)
    same = {day for day, now in found.days.items() if day in before and before[day].raw_hash == now.raw_hash}
    some = parsed.where(_on(found.days.keys() - same)).persist() if before else parsed
    merged = merge(some, tuple(source.context)).persist()
    try:
        made = merged_days(merged)
        days = {day: before[day] if day in same else now.of(made.get(day)) for day, now in found.days.items()}
        counts = _count(days.values(), found.later)
        counts.check()
        _require_accepted(counts, run_date, found.first_later)
        yield Built(merged.select(TABLE.columns), rejected(some, run_date), counts, days)
    finally:
        merged.unpersist()
        some.unpersist()


def _on(days: Set[date | None]) -> Column:
    """Rows of those days; None: rows without a time."""
    day = F.to_date(c.EVENT_TIME)
    return day.isin([found for found in days if found is not None]) | (day.isNull() if None in days else F.lit(False))


def rejected(parsed: DataFrame, run_date: date) -> DataFrame:
    """The rejected rows, columns of rejected_events. Identical raw rows are one row here, though each is counted."""
    bad = parsed.where(~F.col(STATE).isin(OK, LATER)).groupBy(c.ROW_HASH)
    rows = bad.agg(F.min(STATE).alias(c.REASON), F.min(c.RAW).alias(c.RAW))
    return rows.select(F.lit(run_date).alias(c.RUN_DATE), c.REASON, c.ROW_HASH, c.RAW)


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Bring interactions, rejected_events, user_index and scenario_index up to the present raw snapshot."""
    fingerprint = _fingerprint(store, config, run_date)
    indexed = store.exists(index.USER_INDEX) and store.exists(index.SCENARIO_INDEX)
    if not force and indexed and store.is_fresh(TABLE, fingerprint):
        stamp = store.stamp(TABLE) or {}
        return Summary(TABLE.noun, skipped=True, note=stamp.get("counts", ""), version=stamp.get("version"))
    source = config.source.interactions
    before = interaction_days.read(store, config, TABLE) if indexed and not force else {}
    with (
        catalogue.known(store.spark, config, run_date) as known,
        building(raw.read(store.spark, source, SECTION), source, run_date, known, before) as built,
    ):
        log.info("%s", built.counts)
        user_ids, scenarios = _people(store, config, built.accepted)
        index.refresh(store, index.USER_INDEX, user_ids)
        index.refresh(store, index.SCENARIO_INDEX, scenarios)
        rejected_events.add(store, built.rejected, _num_files(sum(built.counts.rejected.values())))
        version = _replace_days(store, config, built, before, run_date, fingerprint)
        counts = built.counts
    return Summary(TABLE.noun, counts.raw, counts.accepted, counts.rejected, note=str(counts), version=version)


def _count(days: Collection[Day], later: int) -> Counts:
    """The raw side was counted on the parsed rows, the accepted side on the merged ones, so that a loss shows."""
    reasons = sum((Counter(day.rejected) for day in days), Counter[str]())
    raw, accepted, merged, duplicates = (
        sum(getattr(day, name) for day in days) for name in ("raw", "accepted", "merged", "duplicates")
    )
    return Counts(raw + later, accepted, merged, duplicates, later, dict(sorted(reasons.items())))


def _require_accepted(counts: Counts, run_date: date, first_later: object) -> None:
    if counts.accepted:
        return
    for reason, n in counts.rejected.items():
        if reason.startswith("unparsable") and n == counts.raw:
            name = reason.split()[1]
            expected = expressions.EXPECTED["time" if name == c.EVENT_TIME else "number"]
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


def _replace_days(
    store: Store, config: Config, built: Built, before: Mapping[date | None, Day], run_date: date, fingerprint: str
) -> int:
    """Write the days that changed; returns the version that readers see."""
    exists = store.exists(TABLE)
    old = digests(before) if before else day_digests(store.read(TABLE), c.EVENT_DATE) if exists else {}
    new = digests(built.days)
    days = changed_days(new, old, run_date)
    later = {day: digest for day, digest in old.items() if day >= run_date.isoformat()}
    if days:
        gone = [day for day in days if day not in new]
        if gone:
            log.warning("%d days (%s to %s) left the raw snapshot and are removed", len(gone), gone[0], gone[-1])
        rows = sum(int(new[day].split(":")[0]) for day in days if day in new)
        where = f"{c.EVENT_DATE} IN ({', '.join(f'DATE{day!r}' for day in days)})" if exists else None
        changed = built.accepted.where(where) if where else built.accepted
        files = _num_files(rows)
        ranged = changed.repartitionByRange(files, c.EVENT_DATE) if files > 1 else changed.coalesce(1)
        ordered = ranged.sortWithinPartitions(c.EVENT_DATE, *KEY)
        metadata = {"fingerprint": fingerprint, "counts": str(built.counts)}
        store.replace(TABLE, ordered.select(TABLE.columns), where=where, metadata=metadata)
    store.remember_days(TABLE, {**new, **later})
    kept = built.days | from_digests(later, before)
    if kept != before:
        interaction_days.write(store, config, TABLE, kept)
    return store.version(TABLE)


def _num_files(rows: int) -> int:
    return max(1, math.ceil(rows / ROWS_A_FILE))
