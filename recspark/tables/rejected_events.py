"""rejected_events: rows that could not be used, each once, with the reason and the run_date that first found it."""

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.warehouse.digests import row_hash
from recspark.warehouse.store import Store, Table

TABLE = Table(
    noun="rejected_events",
    ddl=f"{c.RUN_DATE} date, {c.REASON} string, {c.ROW_HASH} bigint, {c.RAW} string",
    key=(c.ROW_HASH,),
    row="A raw row that could not be used, once, with the reason.",
    comments={
        c.RUN_DATE: "Night that first found the row. Example: 2011-12-10",
        c.REASON: "Why it could not be used. Example: null user_id",
        c.ROW_HASH: "64-bit hash of the row.",
        c.RAW: "The raw row as JSON.",
    },
)


def of(rows: DataFrame, columns: tuple[str, ...], run_date: date) -> DataFrame:
    """The rows that have a `reason`, in TABLE's columns; `columns` are kept of them, as JSON in `raw`."""
    bad = rows.where(F.col(c.REASON).isNotNull()).select(*columns, c.REASON)
    return bad.select(
        F.lit(run_date).alias(c.RUN_DATE),
        c.REASON,
        row_hash(bad).alias(c.ROW_HASH),
        F.to_json(F.struct(*columns), {"ignoreNullFields": "false"}).alias(c.RAW),
    )


def add(store: Store, rows: DataFrame, num_files: int = 1) -> None:
    """Append the rows (TABLE's columns) that are not stored yet; stored ones keep their first run_date."""
    if store.exists(TABLE):
        stored = store.read(TABLE).select(c.ROW_HASH)
        rows = rows.join(stored, on=c.ROW_HASH, how="left_anti").select(TABLE.columns)
    rows = rows.coalesce(num_files).persist()
    try:
        if not store.exists(TABLE) or not rows.isEmpty():
            store.append(TABLE, rows)
    finally:
        rows.unpersist()
