"""candidates.source: candidates made elsewhere, which tonight's lists are made of."""

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.sources import raw
from recspark.tables import index, rejected_events
from recspark.warehouse.store import Store

SECTION = "candidates.source"
KEY = (c.SCENARIO, c.USER_ID, c.ITEM_ID)
MALFORMED = "_malformed"


def read(store: Store, config: Config) -> DataFrame:
    """(scenario, user_id, item_id), null or blank where a row has none, and whether its number of values is not that of
    the header; distinct.

    Raises: SchemaError and ConfigError for wrong expressions, DataError when the source is empty.
    """
    source = config.candidates.source
    assert source is not None
    rows = raw.read(store.spark, source, SECTION)
    place = raw.place(source)
    ids = (
        expressions.column(rows, getattr(source, name), "id", f"{SECTION}.{name}", place).alias(name) for name in KEY
    )
    return rows.select(*ids, raw.malformed(rows).alias(MALFORMED)).distinct()


def with_reason(rows: DataFrame, known: DataFrame) -> DataFrame:
    """The key and a `reason`, null where the row can be ranked. `known` (item_id, unique): tonight's items."""
    marked = rows.join(known.select(c.ITEM_ID, F.lit(True).alias("_known")), on=c.ITEM_ID, how="left")
    reason = F.lit(None).cast("string")
    for name in KEY:
        reason = F.when(~expressions.is_decoded(F.col(name)), f"candidate: unreadable {name}").otherwise(reason)
    for name in reversed(KEY):
        reason = F.when(F.col(name).isNull() | (F.trim(name) == ""), f"candidate: null {name}").otherwise(reason)
    reason = F.when(F.col(MALFORMED), "candidate: malformed row").otherwise(reason)
    reserved = F.col(c.USER_ID) == c.DEFAULT_USER
    unknown = F.when(F.col("_known").isNull(), "candidate: unknown item")
    reason = F.coalesce(reason, F.when(reserved, f"candidate: reserved {c.USER_ID}"), unknown)
    return marked.select(*KEY, reason.alias(c.REASON))


def refresh(store: Store, config: Config, known: DataFrame, run_date: date) -> tuple[DataFrame, dict[str, int]]:
    """Tonight's given rows (user_idx, scenario, item_idx), and how many were rejected, by reason.

    `known` (item_id, item_idx). Users without any event get a number; rejected rows go to rejected_events, once.

    Raises: DataError when no row is left.
    """
    rows = with_reason(read(store, config), known).persist()
    try:
        counts = {row[0]: row[1] for row in rows.groupBy(c.REASON).count().collect()}
        good = rows.where(F.col(c.REASON).isNull()).select(*KEY)
        if not counts.get(None):
            reasons = ", ".join(f"{reason}: {n}" for reason, n in counts.items())
            raise DataError(
                f"{SECTION}: no row can be ranked, found {reasons}; expected rows with a scenario, a user_id and the "
                "item_id of an item known before run_date: fix the expressions or the rows"
            )
        index.refresh(store, index.USER_INDEX, good.select(c.USER_ID))
        rejected_events.add(store, rejected_events.of(rows, KEY, run_date))
    finally:
        rows.unpersist()
    # both indices are unique by id, so the joins keep one row a given row
    numbered = good.join(store.read(index.USER_INDEX), on=c.USER_ID, how="inner").join(
        known.select(c.ITEM_ID, c.ITEM_IDX), on=c.ITEM_ID, how="inner"
    )
    rejected = {reason: n for reason, n in counts.items() if reason is not None}
    return numbered.select(c.USER_IDX, c.SCENARIO, c.ITEM_IDX), rejected
