"""source.items: the catalogue's rows before run_date, and the one row that counts of each item."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config
from recspark.config.sources import ItemSource
from recspark.sources import raw

SECTION = "source.items"
READ_FOR_IDS = ("format", "paths", "table", "options", "where", "item_id", "event_time")  # what `known` depends on
BEFORE_ALL, AFTER_ALL = "0001-01-01", "9999-12-31"  # so a row with a time wins over one without


@contextmanager
def known(spark: SparkSession, config: Config, run_date: date) -> Iterator[DataFrame | None]:
    """The item ids of the catalogue before run_date, distinct; None if events of other items are kept too.

    Read once, however often the events are joined with it; valid inside the `with` only.
    """
    source = config.source.items
    if config.interactions.unknown_items == "keep" or source is None:
        yield None
        return
    found = parse(raw.read(spark, source, SECTION), source, run_date).select(c.ITEM_ID).distinct().persist()
    try:
        found.count()  # so that Spark knows its size, and broadcasts it if it is small
        yield found
    finally:
        found.unpersist()


def parse(rows: DataFrame, source: ItemSource, run_date: date) -> DataFrame:
    """Catalogue rows before run_date, typed: item_id, text, attributes (values as an array), media, name,
    event_time.

    Rows without an item_id are left out, those whose item_id is not UTF-8, and those with another number of values than
    the header.

    Raises: SchemaError and ConfigError for wrong expressions.
    """
    where = raw.place(source)

    def typed(name: str, kind: expressions.Kind) -> Column:
        return expressions.column(rows, getattr(source, name), kind, f"{SECTION}.{name}", where)

    rows = rows.where(~raw.malformed(rows))
    attributes = [
        expressions.column(rows, sql, "text", f"{SECTION}.attributes.{n}", where)
        for n, sql in source.attributes.items()
    ]
    time = typed(c.EVENT_TIME, "time") if source.event_time is not None else F.lit(None).cast("timestamp")
    found = rows.select(
        typed(c.ITEM_ID, "id").alias(c.ITEM_ID),
        _filled(typed(c.TEXT, "text")).alias(c.TEXT),
        F.array(*attributes).cast("array<string>").alias(c.ATTRIBUTES),
        _filled(typed(c.MEDIA, "media")).alias(c.MEDIA),
        _filled(typed(c.NAME, "text")).alias(c.NAME),
        time.alias(c.EVENT_TIME),
    )
    in_time = F.col(c.EVENT_TIME).isNull() | (F.to_date(c.EVENT_TIME) < F.lit(run_date))
    return found.where((F.col(c.ITEM_ID) != "") & expressions.is_decoded(F.col(c.ITEM_ID)) & in_time)


def newest(parsed: DataFrame, source: ItemSource) -> DataFrame:
    """One row an item: item_id, text, attributes, media, `first_seen` (null without times), and name.

    `keep` chooses by event_time; ties are broken by the content, so that the order of the rows does not matter.
    """
    first = source.keep == "first"
    pick = F.min if first else F.max
    time = F.coalesce(c.EVENT_TIME, F.lit(AFTER_ALL if first else BEFORE_ALL).cast("timestamp"))
    # Equal rows first become one, by hashing: min and max of a struct need a sort, and a catalogue may be transactions.
    content = (c.ITEM_ID, c.TEXT, c.ATTRIBUTES, c.MEDIA, c.NAME)
    distinct = parsed.groupBy(*content).agg(pick(time).alias("time"), F.min(c.EVENT_TIME).alias(c.EVENT_TIME))
    has_text = F.col(c.TEXT).isNull() if first else F.col(c.TEXT).isNotNull()  # of two at a time, one with text wins
    row = F.struct("time", has_text.alias("has_text"), c.TEXT, c.ATTRIBUTES, c.MEDIA, c.NAME)
    chosen = distinct.groupBy(c.ITEM_ID).agg(pick(row).alias("row"), F.min(F.to_date(c.EVENT_TIME)).alias(c.FIRST_SEEN))
    values = [(name, F.col("row")[c.ATTRIBUTES][i]) for i, name in enumerate(source.attributes)]
    text, media, name = (F.col("row")[column].alias(column) for column in (c.TEXT, c.MEDIA, c.NAME))
    return chosen.select(c.ITEM_ID, text, expressions.text_map(values).alias(c.ATTRIBUTES), media, c.FIRST_SEEN, name)


def _filled(text: Column) -> Column:
    """Trimmed; blank is null."""
    return F.when(F.trim(text) != "", F.trim(text))
