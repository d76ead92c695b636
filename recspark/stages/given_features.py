"""given_features: what the sources say of users and items, as tables; and as of tonight and of every past date that the
rankers learn from, as a folder that they read (recspark/given_features.py).

A past date's folder is named by its content, which is of ids with an event before the date and of values known before
it: new users, and what becomes known later, build no past date again.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config
from recspark.config.sources import ItemSource, UserSource
from recspark.given_features import ITEMS, MOST_TEXTS, SIDES, USERS, Names
from recspark.sources import raw
from recspark.sources.given_features import SECTIONS, parse, sources_of
from recspark.summary import Summary
from recspark.tables import given_features as table
from recspark.tables import index
from recspark.tables.given_features import FIRST, IDX, TABLES, Statistic
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS_TABLE
from recspark.warehouse import artifacts
from recspark.warehouse.digests import rows_hash
from recspark.warehouse.given_features import NOUN
from recspark.warehouse.store import Store
from recspark.windows import as_ofs

log = logging.getLogger(__name__)

ROWS_A_FILE = 1_000_000
CONTENT = "content"  # in a commit's metadata: the hash of the table's rows
FOLDERS, NOTE = "folders", "note"  # of the file that says what a night with the same inputs has found
ALL_NEW, SOME_VALUES = 0.9, 50  # a category with about as many different texts as values, from so many values on


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Replace the tables whose source has changed, and write the folders that are missing for tonight and past dates.

    Raises: ConfigError, SchemaError and DataError for a source or an expression that cannot be used.
    """
    sources = sources_of(config)
    if not sources:
        return Summary(NOUN, skipped=True, note="not configured")
    settings = config.training_examples
    notes = [refresh_table(store, config, run_date, side, source, force) for side, source in sources.items()]
    dates = as_ofs(run_date, settings.label_days, settings.num_windows)
    read = [TABLES[side] for side in sources]
    tokens = [store.token(one) for one in (*read, INTERACTIONS, ITEMS_TABLE, index.USER_INDEX, index.ITEM_INDEX)]
    known = f"{store.models(NOUN)}/{run_date}-{artifacts.fingerprint(NOUN, config, run_date, dates, *tokens)}.txt"
    found = json.loads(model_folder.read_file(known) or "{}")
    folders = {day: artifacts.folder(store, NOUN, found[FOLDERS][n]) for n, day in enumerate(dates) if found}
    built = 0
    if force or not folders or not all(map(model_folder.exists, folders.values())):
        folders, built, note = _build(store, config, sources, dates, force)
        found = {FOLDERS: [artifacts.name_of(path) for path in folders.values()], NOTE: note}
        model_folder.write_file(known, json.dumps(found))
    for day, path in folders.items():
        artifacts.point(store, config, NOUN, day, path)
    changed = [one for one in notes if one is not None]
    note = "; ".join(part for part in (found[NOTE], *changed) if part)
    return Summary(NOUN, rows_out=built, skipped=not built and not changed, note=note)


def refresh_table(
    store: Store, config: Config, run_date: date, side: str, source: ItemSource | UserSource, force: bool
) -> str | None:
    """Replace the table of a side if its source has changed; returns a note of rows that cannot be used (empty without
    any), None if it was fresh. Rows that are as they were are not committed."""
    target, section = TABLES[side], SECTIONS[side]
    fingerprint = artifacts.fingerprint(target.noun, config, raw.fingerprint(store.spark, source, section))
    if not force and artifacts.is_fresh(store, target, run_date, fingerprint):
        return None
    names, id_name = table.names_of(source.features), target.key[0]
    parsed = parse(raw.read(store.spark, source, section), source, side)
    chosen = table.one_a_time(parsed, id_name).persist()
    try:
        rows = table.build(chosen, names, target)
        count, content = rows.agg(F.count("*"), rows_hash(rows).cast("string")).collect()[0]
        unusable = F.coalesce(F.sum(F.when(F.col(id_name).isNull(), F.col(table.ROWS))), F.lit(0))
        cut = [F.count_if(F.col(id_name).isNotNull() & table.is_cut(n)) for n in range(len(names.texts))]
        left_out, *cuts = chosen.agg(unusable, *cut).collect()[0]
        stamp = store.stamp(target)
        if force or stamp is None or stamp.get(CONTENT) != content:
            files = rows.coalesce(max(1, math.ceil(count / ROWS_A_FILE)))
            store.replace(target, files, metadata={artifacts.FINGERPRINT: fingerprint, CONTENT: content})
        artifacts.confirm(store, target, run_date, fingerprint)
    finally:
        chosen.unpersist()
    notes = (
        [f"{left_out:,} rows of {section} left out: no usable id, or a time that cannot be read"] if left_out else []
    )
    for name, n in zip(names.texts, cuts, strict=True):
        notes += [f"{section}.features.{name}: more than {MOST_TEXTS} texts in {n:,} rows, cut"] if n else []
    return "; ".join(notes)


def _build(
    store: Store,
    config: Config,
    sources: Mapping[str, ItemSource | UserSource],
    dates: tuple[date, ...],
    force: bool,
) -> tuple[dict[date, str], int, str]:
    """Write the folders that do not exist; returns the folder of each date, how many were written, and a note."""
    tonight = dates[0]
    names = {side: table.names_of(sources[side].features) if side in sources else Names() for side in SIDES}
    with _rows(store, sources, names, tonight) as rows:
        contents, num_ids = table.contents(rows, dates, tonight)
        folders = {
            day: artifacts.folder(store, NOUN, f"{day}-{artifacts.fingerprint(NOUN, config, day, *content)}")
            for day, content in zip(dates, contents, strict=True)
        }
        missing = {day: path for day, path in folders.items() if force or not model_folder.exists(path)}
        for path in missing.values():
            model_folder.remove(path)
        if missing:
            table.write(rows, missing, tonight, names)
        note = _note(table.statistics(rows, tonight, names), num_ids, names)
    return folders, len(missing), note


@contextmanager
def _rows(
    store: Store, sources: Mapping[str, ItemSource | UserSource], names: Mapping[str, Names], tonight: date
) -> Iterator[DataFrame]:
    """The rows of `tables.given_features.of_ids` of both sides, cached inside the `with`."""
    ids = {USERS: _users, ITEMS: _items}
    parts = []
    for side, source in sources.items():
        features = store.read(TABLES[side])
        rows = table.of_ids(ids[side](store, tonight), features, names[side], side, source.event_time is not None)
        # of users, the index also has those of removed and of later events
        parts.append(rows.where(F.col(FIRST).isNotNull() | F.col(c.NUMBERS).isNotNull()))
    found = reduce(DataFrame.unionByName, parts).persist()
    try:
        yield found
    finally:
        found.unpersist()


def _users(store: Store, tonight: date) -> DataFrame:
    """(user_id, IDX, FIRST) of every user with a number; FIRST is the day of the first event, null without one."""
    events = store.events(INTERACTIONS, None, tonight)
    first = events.groupBy(c.USER_ID).agg(F.min(c.EVENT_DATE).alias(FIRST))
    numbers = store.read(index.USER_INDEX).withColumnRenamed(c.USER_IDX, IDX)
    return numbers.join(first, on=c.USER_ID, how="left")  # user_id is unique on both sides


def _items(store: Store, tonight: date) -> DataFrame:
    """(item_id, IDX, FIRST) of the items known tonight; FIRST is the day since when they are."""
    numbers = store.read(index.ITEM_INDEX).withColumnRenamed(c.ITEM_IDX, IDX)
    known = store.read(ITEMS_TABLE).where(F.col(c.FIRST_SEEN) < F.lit(tonight))
    first = known.select(c.ITEM_ID, F.col(c.FIRST_SEEN).alias(FIRST))
    return numbers.join(first, on=c.ITEM_ID, how="inner")  # item_id is unique on both sides


def _note(found: Mapping[tuple[str, str], Statistic], num_ids: Mapping[str, int], names: Mapping[str, Names]) -> str:
    """Each feature's coverage and number of different values; a warning for one that can teach nothing."""
    parts = []
    for (side, name), one in found.items():
        share = one.ids / max(num_ids[side], 1)
        parts.append(f"{side}.{name} known of {share:.0%}, {one.distinct:,} different")
        key, is_text = f"{SECTIONS[side]}.features.{name}", name in names[side].texts
        if not one.ids:
            log.warning("%s: no value tonight; is the expression right?", key)
        elif one.distinct == 1 and one.ids > 1:
            log.warning("%s: one value everywhere, so nothing can be learnt from it", key)
        elif is_text and one.values >= SOME_VALUES and one.distinct >= ALL_NEW * one.values:
            log.warning("%s: nearly every text stands once, like an id; a coarser one teaches more", key)
    return ", ".join(parts)
