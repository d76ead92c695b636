"""recspark erase --config F --user ID: take users out of every table and model folder of the warehouse.

A user's number in user_index stays, with a random name in the place of the id, so that no number is used again. Stages
whose inputs lost a user count as unchanged: the next night builds nothing again because of it, but for the folders of
features, where users have some, and the rankers that read them. The command can be repeated, also after a crash: the
index comes last.
"""

import json
import re
import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

import fsspec
import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import given_features, histories, model_folder
from recspark.config.schema import Config
from recspark.errors import ConfigError, RecsparkError
from recspark.sources import events, raw, users
from recspark.tables import index, interaction_days, rejected_events, training_examples
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.reference import TABLES
from recspark.warehouse import erased
from recspark.warehouse.digests import day_digests
from recspark.warehouse.given_features import NOUN
from recspark.warehouse.old_versions import forget_log, setting, vacuum
from recspark.warehouse.state import DROPPED
from recspark.warehouse.store import Store, Table

TOMBSTONE = "erased-"  # and 32 random digits
EXAMPLES = "training_examples"
PAIRS = "pairs"  # in a text adapter's folder, until it is trained
FILES_STAY = "spark.databricks.delta.merge.repartitionBeforeWrite.enabled"  # "false": as many files as before


def erase(store: Store, config: Config, ids: Sequence[str], at_once: bool = False) -> Iterator[str]:
    """Yield a line for every place where the users were found, and for what remains. `at_once`: old versions of the
    tables are removed too, after which nobody can go back to them.

    Raises: ConfigError without ids, or for the reserved one.
    """
    wanted = sorted({one.strip() for one in ids} - {""})
    if not wanted or c.DEFAULT_USER in wanted:
        raise ConfigError(f"erase: found {len(wanted)} users, expected --user with ids of the source; no reserved one")
    gone = store.spark.createDataFrame([(one,) for one in wanted], f"{c.USER_ID} string").coalesce(1)
    examples = training_examples.table(config.training_examples.tasks)
    tables = [table for table in (*TABLES, examples) if store.exists(table) and _holds_users(table)]
    erased.keep_in_mind(store.warehouse, [table.noun for table in tables])
    numbers = _numbers(store, gone)
    with setting(store, FILES_STAY, "false"):
        for table in tables:
            found = _of_table(store, table, gone, numbers, wanted)
            if found:
                yield f"{table.noun}: {found:,} rows deleted"
        yield from _models(store, numbers)
        if store.exists(index.USER_INDEX):
            names = [(one, f"{TOMBSTONE}{uuid.uuid4().hex}") for one in wanted]
            new = store.spark.createDataFrame(names, f"{c.USER_ID} string, new string").coalesce(1)
            found = index.replace_ids(store, index.USER_INDEX, new)
            yield f"{index.USER_INDEX.noun}: {found:,} of {len(wanted):,} ids replaced by random names"
    erased.keep_in_mind(store.warehouse, [table.noun for table in tables])
    yield from _sources(store, config, gone)
    yield _old_versions(store, config, tables, at_once)


def _holds_users(table: Table) -> bool:
    return table == rejected_events.TABLE or not {c.USER_ID, c.USER_IDX}.isdisjoint(table.columns)


def _numbers(store: Store, gone: DataFrame) -> list[int]:
    """The numbers of the users."""
    if not store.exists(index.USER_INDEX):
        return []
    found = store.read(index.USER_INDEX).join(F.broadcast(gone), on=c.USER_ID, how="left_semi")
    return sorted(row[c.USER_IDX] for row in found.collect())


def _of_table(store: Store, table: Table, gone: DataFrame, numbers: Sequence[int], ids: Collection[str]) -> int:
    if table == index.USER_INDEX:
        return 0  # at the end, since the numbers are found by it
    if table == INTERACTIONS:
        return _events(store, gone)
    if table == rejected_events.TABLE:
        return _rejected(store, ids)
    if c.USER_ID in table.columns:
        return store.erase(table, gone)
    if table.noun == EXAMPLES:
        return _examples(store, table, numbers)
    rows = [(number,) for number in numbers]
    return store.erase(table, store.spark.createDataFrame(rows, f"{c.USER_IDX} int").coalesce(1))


def _events(store: Store, gone: DataFrame) -> int:
    """From interactions. The days that lose a row are remembered first: they count as unchanged from then on; and their
    raw rows are read again by the next night, whatever they are."""
    rows = store.read(INTERACTIONS)
    days = [
        row[0]
        for row in rows.join(F.broadcast(gone), on=c.USER_ID, how="left_semi").select(c.EVENT_DATE).distinct().collect()
    ]
    if not days:
        return 0
    of_days = rows.where(F.col(c.EVENT_DATE).isin(days))
    before = day_digests(of_days, c.EVENT_DATE)
    others = of_days.join(F.broadcast(gone), on=c.USER_ID, how="left_anti").select(INTERACTIONS.columns)
    after = day_digests(others, c.EVENT_DATE)
    settings = str((store.stamp(interaction_days.TABLE) or {}).get(interaction_days.SETTINGS))
    known = interaction_days.read(store, settings, INTERACTIONS)
    erased.changed(store.warehouse, INTERACTIONS.noun, before, after)
    count = store.erase(INTERACTIONS, gone)
    if known:
        interaction_days.write(store, settings, INTERACTIONS, {**known, **_lessened(known, days, after)})
    return count


def _lessened(
    known: dict[date | None, interaction_days.Day], days: Sequence[date], after: dict[str, str]
) -> dict[date | None, interaction_days.Day]:
    """The days without the erased rows. Without a hash of their raw rows the next night reads them again."""
    found: dict[date | None, interaction_days.Day] = {}
    for day in days:
        old = known.get(day, interaction_days.Day())
        number, _, rows_hash = after.get(str(day), "0::").partition(":")
        raw_rows = old.raw - old.accepted + int(number)
        found[day] = replace(old, raw=raw_rows, accepted=int(number), rows_hash=rows_hash, raw_hash="")
    return found


def _rejected(store: Store, ids: Collection[str]) -> int:
    """Rejected raw rows in which an id stands as a word, in large or small letters: it is not known which column is
    whose. A short id may so take rows of others with it; they have only been kept to be looked at."""
    rows = []
    for one in ids:
        in_json = json.dumps(one, ensure_ascii=False)[1:-1]
        for text in {
            in_json.lower(),
            json.dumps(in_json, ensure_ascii=False)[1:-1].lower(),
        }:  # a row that is JSON itself
            rows.append((text, rf"(?<![\p{{L}}\p{{N}}]){re.escape(text)}(?![\p{{L}}\p{{N}}])"))
    needles = store.spark.createDataFrame(rows, "text string, pattern string").coalesce(1)
    stored = store.read(rejected_events.TABLE).withColumn("lower", F.lower(c.RAW))
    named = F.expr("instr(lower, text) > 0 AND rlike(lower, pattern)")
    found = stored.join(F.broadcast(needles), named, "left_semi").select(c.ROW_HASH).distinct().persist()
    try:
        return store.erase(rejected_events.TABLE, found)
    finally:
        found.unpersist()


def _examples(store: Store, table: Table, numbers: Sequence[int]) -> int:
    """Window by window, in the order and the number of files that the feed needs."""
    mine = F.col(c.USER_IDX).isin(list(numbers))
    windows = store.read(table).where(mine).groupBy(c.AS_OF).count().collect() if numbers else []
    for as_of, _ in windows:
        files = len(store.files(table, store.version(table), {c.AS_OF: as_of}))
        kept = store.read(table).where((F.col(c.AS_OF) == F.lit(as_of)) & ~mine)
        rows = training_examples.in_hash_order(kept, table.key, files)
        store.replace(table, rows, where=f"{c.AS_OF} = '{as_of}'", metadata={DROPPED: []})
    return sum(count for _, count in windows)


def _models(store: Store, numbers: Sequence[int]) -> Iterator[str]:
    """From the shards of histories and of features, and from what a killed training has left."""
    erasers = {"histories": (histories.erase_users, "events"), NOUN: (given_features.erase_users, "rows of features")}
    for noun, (erase_users, what) in erasers.items() if numbers else ():
        folders = [path for path in _folders(store, noun) if model_folder.exists(path)]
        removed = [erase_users(path, np.array(numbers, np.int64)) for path in folders]
        if any(removed):
            yield f"models/{noun}: {sum(removed):,} {what}, in {np.count_nonzero(removed)} of {len(folders)} folders"
    for path in _folders(store, "text_adapter"):
        model_folder.remove(f"{path}/{PAIRS}")


def _folders(store: Store, noun: str) -> list[str]:
    fs, root = fsspec.core.url_to_fs(store.models(noun))
    return (
        [fs.unstrip_protocol(path) for path in fs.ls(root, detail=False) if fs.isdir(path)] if fs.exists(root) else []
    )


def _sources(store: Store, config: Config, gone: DataFrame) -> Iterator[str]:
    """What the sources still have, which the next night would read again."""
    found = {}
    try:
        source = config.source.interactions
        rows = events.parse(raw.read(store.spark, source, events.SECTION), source, date.max, None)
        found[events.SECTION] = rows.join(F.broadcast(gone), on=c.USER_ID, how="left_semi").count()
        if config.source.users is not None:
            listed = users.ids_of_rows(store, config)
            found[users.SECTION] = listed.join(F.broadcast(gone), on=c.USER_ID, how="left_semi").count()
    except RecsparkError as error:
        yield f"sources: cannot be read ({error}); rows that they still have of them come back with the next night"
    for section, count in found.items():
        if count:
            yield f"{section}: still has {count:,} rows of them, which come back with the next night: delete them there"


def _old_versions(store: Store, config: Config, tables: Sequence[Table], at_once: bool) -> str:
    hours = config.maintenance.retention_hours
    if not at_once:
        last = datetime.now(timezone.utc) + timedelta(hours=hours)
        return (
            f"old versions of {len(tables)} tables still hold them until `recspark maintain` is run after "
            f"{last:%Y-%m-%d %H:%M} UTC (maintenance.retention_hours), or this command with --vacuum"
        )
    for table in tables:
        vacuum(store, table, 0.0)
        forget_log(store, table)
        erased.done(store.warehouse, table.noun)
    return f"old versions of {len(tables)} tables removed: nothing remains in the warehouse"
