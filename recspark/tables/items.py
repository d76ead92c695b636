"""items: the content of each item (its newest or oldest catalogue row) and since when it is known.

An item enters the table when it is in the catalogue or in an accepted event before run_date, and stays there.
`first_seen` is the earliest of its first event, its first catalogue row and the stored date; an item with none of
these gets the day before run_date, so that tonight's run (first_seen < run_date) uses it.
"""

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark import columns as c
from recspark.warehouse.store import Table

TABLE = Table(
    noun="items",
    ddl=f"{c.ITEM_ID} string, {c.TEXT} string, {c.ATTRIBUTES} map<string,string>, {c.MEDIA} string, "
    f"{c.CONTENT_HASH} string, {c.FIRST_SEEN} date, {c.NAME} string",
    key=(c.ITEM_ID,),
    row="An item of the catalogue, or of an accepted event. It stays when it leaves the catalogue.",
)

LISTED = (c.ITEM_ID, c.TEXT, c.ATTRIBUTES, c.MEDIA, c.FIRST_SEEN, c.NAME)  # from the catalogue
IS_LISTED, FIRST_EVENT, OLD = "_listed", "_first_event", "_old_"


def build(listed: DataFrame | None, events: DataFrame, stored: DataFrame | None, run_date: date) -> DataFrame:
    """The rows of `items` that are new or differ from the stored ones.

    `listed` is the frame of catalogue.newest, `events` has item_id and event_date, `stored` is the table as it is. An
    item that left the catalogue keeps its last content. All three are unique by item_id where they are joined, so each
    item is one row.
    """
    if listed is None:
        listed = events.sparkSession.createDataFrame([], T.StructType([TABLE.schema[name] for name in LISTED]))
    if stored is None:
        stored = events.sparkSession.createDataFrame([], TABLE.schema)
    first_events = events.groupBy(c.ITEM_ID).agg(F.min(c.EVENT_DATE).alias(FIRST_EVENT))
    old = stored.select(c.ITEM_ID, *(F.col(name).alias(OLD + name) for name in TABLE.columns[1:]))
    found = listed.withColumn(IS_LISTED, F.lit(True)).join(first_events, on=c.ITEM_ID, how="full")
    both = found.join(old, on=c.ITEM_ID, how="left")
    content = {name: _content(name) for name in (c.TEXT, c.ATTRIBUTES, c.MEDIA, c.NAME)}
    first_seen = F.least(c.FIRST_SEEN, FIRST_EVENT, OLD + c.FIRST_SEEN)  # nulls do not count
    rows = both.select(
        c.ITEM_ID,
        *(column.alias(name) for name, column in content.items()),
        _hash(content).alias(c.CONTENT_HASH),
        F.coalesce(first_seen, F.lit(run_date - timedelta(days=1))).alias(c.FIRST_SEEN),
        OLD + c.CONTENT_HASH,
        OLD + c.ATTRIBUTES,
        OLD + c.FIRST_SEEN,
        OLD + c.NAME,
    )
    same = F.lit(True)
    for name in (c.CONTENT_HASH, c.ATTRIBUTES, c.FIRST_SEEN, c.NAME):
        new, stored_one = (_entries(x) if name == c.ATTRIBUTES else F.col(x) for x in (name, OLD + name))
        same &= new.eqNullSafe(stored_one)
    return rows.where(~same).select(TABLE.columns)


def _content(name: str) -> Column:
    """From the catalogue, or as stored when the item is no longer in the catalogue."""
    empty = F.expr("CAST(map() AS map<string,string>)") if name == c.ATTRIBUTES else F.lit(None).cast("string")
    return F.when(F.col(IS_LISTED), F.col(name)).otherwise(F.coalesce(OLD + name, empty))


def _hash(content: dict[str, Column]) -> Column:
    """SHA-256 of text and media, the input of the encoders."""
    row = F.struct(content[c.TEXT].alias(c.TEXT), content[c.MEDIA].alias(c.MEDIA))
    return F.sha2(F.to_json(row), 256)


def _entries(name: str) -> Column:
    """The entries of a map in the order of its keys, since Spark cannot compare maps."""
    return F.sort_array(F.map_entries(name))
