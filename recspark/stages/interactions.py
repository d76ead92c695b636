"""interactions: from raw events to accepted ones, and to the table of rejected rows.

A raw snapshot holds all days before run_date. Each night hashes its rows by day, builds the days whose raw rows
changed, and replaces the days whose events changed. So a late event is added in the next run, days that are no longer
in the snapshot (an erased user, a corrected feed) are removed, an unchanged snapshot commits nothing, and days from
run_date on are not touched.
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
from recspark.config.schema import Config
from recspark.config.sources import InteractionSource, Source
from recspark.errors import ConfigError, DataError, SchemaError
from recspark.sources import catalogue, raw, users
from recspark.sources.events import LATER, OK, SECTION, STATE, merge, merged_days, parse, raw_days
from recspark.sources.users import eligible_users
from recspark.summary import Summary
from recspark.tables import index, interaction_days, rejected_events
from recspark.tables.interaction_days import Day, digests, from_digests
from recspark.tables.interactions import KEY, TABLE, Counts, changed_days
from recspark.warehouse import artifacts
from recspark.warehouse.digests import day_digests
from recspark.warehouse.store import Store

log = logging.getLogger(__name__)

UNIX_START = 1970  # where times lie that were read in a unit a thousand times too small
ROWS_A_FILE = 5_000_000  # near 100 MB


@dataclass(frozen=True)
class Built:
    """The events of a raw snapshot before run_date; the frames are valid inside `building` only."""

    accepted: DataFrame  # TABLE's columns; only the days that changed
    rejected: DataFrame  # columns of rejected_events, identical raw rows once; only the days that changed
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
    """Split the raw rows into accepted, merged, rejected, duplicate and later ones.

    `known_items` (item_id, unique): if given, rows with other items are rejected. `before`: the days built so far; days
    with the same raw rows are not built again. Raw rows are read once without it, twice with it.

    Raises: SchemaError and ConfigError for wrong expressions, DataError if no row before run_date is usable.
    """
    parsed = parse(rows, source, run_date, known_items)
    if not before:
        parsed = parsed.persist()
    raw_side = raw_days(parsed)
    same = {day for day, now in raw_side.days.items() if day in before and before[day].raw_hash == now.raw_hash}
    changed = parsed.where(_on_days(raw_side.days.keys() - same)).persist() if before else parsed
    merged = merge(changed, tuple(source.context)).persist()
    try:
        accepted = merged_days(merged)
        days = {day: before[day] if day in same else now.of(accepted.get(day)) for day, now in raw_side.days.items()}
        counts = _count(days.values(), raw_side.later)
        counts.check()
        _require_accepted(counts, days, run_date, raw_side.first_later)
        yield Built(merged.select(TABLE.columns), rejected(changed, run_date), counts, days)
    finally:
        merged.unpersist()
        changed.unpersist()


def _on_days(days: Set[date | None]) -> Column:
    """Is the row of one of these days? None: a row without a time."""
    day = F.to_date(c.EVENT_TIME)
    return day.isin([one for one in days if one is not None]) | (day.isNull() if None in days else F.lit(False))


def rejected(parsed: DataFrame, run_date: date) -> DataFrame:
    """The rejected rows, with the columns of rejected_events; identical raw rows are one row, but each is counted."""
    bad = parsed.where(~F.col(STATE).isin(OK, LATER)).groupBy(c.ROW_HASH)
    rows = bad.agg(F.min(STATE).alias(c.REASON), F.min(c.RAW).alias(c.RAW))
    return rows.select(F.lit(run_date).alias(c.RUN_DATE), c.REASON, c.ROW_HASH, c.RAW)


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Update interactions, rejected_events, user_index and scenario_index from the present raw snapshot."""
    fingerprint = _fingerprint(store, config, run_date)
    indexed = store.exists(index.USER_INDEX) and store.exists(index.SCENARIO_INDEX)
    counted = interaction_days.is_of(store, _settings(config), TABLE)  # not so where a run ended between two commits
    if not force and indexed and counted and artifacts.is_fresh(store, TABLE, run_date, fingerprint):
        stamp = store.stamp(TABLE) or {}
        return Summary(TABLE.noun, skipped=True, note=stamp.get("counts", ""), version=stamp.get("version"))
    source = config.source.interactions
    before = interaction_days.read(store, _settings(config), TABLE) if indexed and not force else {}
    with (
        catalogue.known(store.spark, config, run_date) as known,
        building(raw.read(store.spark, source, SECTION), source, run_date, known, before) as built,
    ):
        log.info("%s", built.counts)
        user_ids, scenarios = _ids(store, config, built.accepted)
        index.refresh(store, index.USER_INDEX, user_ids)
        index.refresh(store, index.SCENARIO_INDEX, scenarios)
        rejected_events.add(store, built.rejected, _num_files(sum(built.counts.rejected.values())))
        version = _replace_days(store, config, built, before, run_date, fingerprint)
        artifacts.confirm(store, TABLE, run_date, fingerprint)
        counts = built.counts
    return Summary(TABLE.noun, counts.raw, counts.accepted, counts.rejected, note=str(counts), version=version)


def _count(days: Collection[Day], later: int) -> Counts:
    """Counts of all days. Raw rows were counted before merging and accepted ones after, so that a lost row shows."""
    reasons = sum((Counter(day.rejected) for day in days), Counter[str]())
    raw, accepted, merged, duplicates = (
        sum(getattr(day, name) for day in days) for name in ("raw", "accepted", "merged", "duplicates")
    )
    return Counts(raw + later, accepted, merged, duplicates, later, dict(sorted(reasons.items())))


def _require_accepted(counts: Counts, days: Mapping[date | None, Day], run_date: date, first_later: str | None) -> None:
    if counts.accepted:
        last = max(day for day, found in days.items() if day is not None and found.accepted)
        if last.year == UNIX_START:
            raise DataError(f"{SECTION}.{c.EVENT_TIME}: all events lie in 1970; unix seconds need timestamp_seconds(x)")
        return
    for reason, n in counts.rejected.items():
        if reason.startswith("unparsable") and n == counts.raw:
            name = reason.split()[1]
            expected = expressions.EXPECTED["time" if name == c.EVENT_TIME else "number"]
            raise SchemaError(f"{SECTION}.{name}: none of {n} rows could be cast; expected {expected}")
    if counts.later and not counts.rejected:
        raise DataError(f"no event before run_date {run_date}; the first is at {first_later}: give a later --run-date")
    reasons = ", ".join(f"{reason}: {n}" for reason, n in counts.rejected.items())
    raise DataError(f"{SECTION}: no usable row before run_date {run_date} ({counts}; {reasons}); fix the expressions")


def _fingerprint(store: Store, config: Config, run_date: date) -> str:
    if config.interactions.unknown_items == "reject" and config.source.items is None:
        raise ConfigError("interactions.unknown_items: reject needs source.items; add it, or set `keep`")
    with_lists = config.source.users_with_lists
    sources: dict[str, Source | None] = {SECTION: config.source.interactions, users.SECTION: with_lists}
    if config.interactions.unknown_items == "reject":
        sources[catalogue.SECTION] = config.source.items
    found = [raw.fingerprint(store.spark, source, name) for name, source in sources.items() if source is not None]
    return artifacts.fingerprint(TABLE.noun, config, _settings(config), config.digest(users.SECTION), run_date, *found)


def _settings(config: Config) -> str:
    """Hash of the settings by which events are made from raw rows; days built with other settings are built again."""
    known = [f"{catalogue.SECTION}.{key}" for key in catalogue.READ_FOR_IDS]
    reject = config.interactions.unknown_items == "reject"
    return artifacts.fingerprint(TABLE.noun, config, config.digest(*known) if reject else None)


def _ids(store: Store, config: Config, accepted: DataFrame) -> tuple[DataFrame, DataFrame]:
    """The ids of users and scenarios, from the events and from source.users, if it gives lists."""
    ids = accepted.select(c.SCENARIO, c.USER_ID)
    if config.source.users_with_lists is not None:
        ids = ids.union(eligible_users(store, config))
        reserved = users.num_reserved(store, config)
        if reserved:
            log.warning("%s: %d rows with reserved ids (such as %s) left out", users.SECTION, reserved, c.DEFAULT_USER)
    return ids.select(c.USER_ID), ids.select(c.SCENARIO)


def _replace_days(
    store: Store, config: Config, built: Built, before: Mapping[date | None, Day], run_date: date, fingerprint: str
) -> int:
    """Write the days that changed; returns the newest version."""
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
        metadata = {artifacts.FINGERPRINT: fingerprint, "counts": str(built.counts)}
        store.replace(TABLE, ordered.select(TABLE.columns), where=where, metadata=metadata)
    store.remember_days(TABLE, {**new, **later})
    kept = built.days | from_digests(later, before)
    if kept != before:
        interaction_days.write(store, _settings(config), TABLE, kept)
    return store.version(TABLE)


def _num_files(rows: int) -> int:
    return max(1, math.ceil(rows / ROWS_A_FILE))
