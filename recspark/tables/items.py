"""items: what each item is (its newest or oldest catalogue row) and since when it is known.

An item is in the table once it stood in the catalogue or in an accepted event before run_date, and stays there.
`first_seen` is the earliest of its first event, its first catalogue row and what is already stored; an item with none
of these dates was first seen on the day before run_date, so that tonight (first_seen < run_date) knows it.
"""

import math
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark import columns as c
from recspark.config import Config
from recspark.summary import Summary
from recspark.tables import index, raw
from recspark.tables.catalogue import SECTION, newest, parse
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.store import Store, Table

TABLE = Table(
    noun="items",
    ddl=f"{c.ITEM_ID} string, {c.TEXT} string, {c.ATTRIBUTES} map<string,string>, {c.MEDIA} string, "
    f"{c.CONTENT_HASH} string, {c.FIRST_SEEN} date",
    key=(c.ITEM_ID,),
)

LISTED = (c.ITEM_ID, c.TEXT, c.ATTRIBUTES, c.MEDIA, c.FIRST_SEEN)  # what the catalogue says
IS_LISTED, FIRST_EVENT, OLD = "_listed", "_first_event", "_old_"
ROWS_A_FILE = 1_000_000


def build(listed: DataFrame | None, events: DataFrame, stored: DataFrame | None, run_date: date) -> DataFrame:
    """The rows of `items` that are new or differ from the stored ones.

    `listed` is the frame of catalogue.newest, `events` has item_id and event_date, `stored` is the present table. An
    item that left the catalogue keeps its last content. All three are unique by item_id at the joins, so each item is
    one row.
    """
    if listed is None:
        listed = events.sparkSession.createDataFrame([], T.StructType([TABLE.schema[name] for name in LISTED]))
    if stored is None:
        stored = events.sparkSession.createDataFrame([], TABLE.schema)
    sold = events.groupBy(c.ITEM_ID).agg(F.min(c.EVENT_DATE).alias(FIRST_EVENT))
    old = stored.select(c.ITEM_ID, *(F.col(name).alias(OLD + name) for name in TABLE.columns[1:]))
    found = listed.withColumn(IS_LISTED, F.lit(True)).join(sold, on=c.ITEM_ID, how="full")
    both = found.join(old, on=c.ITEM_ID, how="left")
    content = {name: _content(name) for name in (c.TEXT, c.ATTRIBUTES, c.MEDIA)}
    seen = F.least(c.FIRST_SEEN, FIRST_EVENT, OLD + c.FIRST_SEEN)  # nulls do not count
    rows = both.select(
        c.ITEM_ID,
        *(column.alias(name) for name, column in content.items()),
        _hash(content).alias(c.CONTENT_HASH),
        F.coalesce(seen, F.lit(run_date - timedelta(days=1))).alias(c.FIRST_SEEN),
        OLD + c.CONTENT_HASH,
        OLD + c.ATTRIBUTES,
        OLD + c.FIRST_SEEN,
    )
    same = F.lit(True)
    for name in (c.CONTENT_HASH, c.ATTRIBUTES, c.FIRST_SEEN):
        new, stored_one = (_entries(x) if name == c.ATTRIBUTES else F.col(x) for x in (name, OLD + name))
        same &= new.eqNullSafe(stored_one)
    return rows.where(~same).select(TABLE.columns)


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Bring items and item_index up to the present catalogue and the events before run_date."""
    source = config.source.items
    events = store.digest(INTERACTIONS, c.EVENT_DATE, run_date)
    catalogue = None if source is None else raw.fingerprint(store.spark, source, SECTION)
    fingerprint = store.fingerprint(config.digest("source"), run_date, events, catalogue)
    if not force and store.exists(index.ITEM_INDEX) and store.is_fresh(TABLE, fingerprint):
        return Summary(TABLE.noun, skipped=True, version=store.version(TABLE))
    listed = None if source is None else newest(parse(raw.read(store.spark, source, SECTION), source, run_date), source)
    stored = store.read(TABLE) if store.exists(TABLE) else None
    changed = build(listed, store.events(INTERACTIONS, None, run_date), stored, run_date).persist()
    # Both before the merge, after which Spark would make `changed` anew, from a table that has it all
    count, without_text = changed.agg(F.count("*"), F.count_if(F.col(c.TEXT).isNull())).first()
    ids = changed.select(c.ITEM_ID) if stored is None else changed.select(c.ITEM_ID).union(stored.select(c.ITEM_ID))
    index.refresh(store, index.ITEM_INDEX, ids)
    if count:
        store.merge(TABLE, changed.coalesce(math.ceil(count / ROWS_A_FILE)), {"fingerprint": fingerprint})
    changed.unpersist()
    note = f"{count} new or changed, {without_text} of them without text"
    return Summary(TABLE.noun, count, store.read(TABLE).count(), note=note, version=store.version(TABLE))


def _content(name: str) -> Column:
    """What the catalogue says, or what was stored when it no longer has the item."""
    empty = F.expr("CAST(map() AS map<string,string>)") if name == c.ATTRIBUTES else F.lit(None).cast("string")
    return F.when(F.col(IS_LISTED), F.col(name)).otherwise(F.coalesce(OLD + name, empty))


def _hash(content: dict[str, Column]) -> Column:
    """SHA-256 of text and media, which encoders see."""
    whole = F.struct(content[c.TEXT].alias(c.TEXT), content[c.MEDIA].alias(c.MEDIA))
    return F.sha2(F.to_json(whole), 256)


def _entries(name: str) -> Column:
    """A map in the order of its keys: maps cannot be compared."""
    return F.sort_array(F.map_entries(name))
