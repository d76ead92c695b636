"""Hashes of rows, by which a day is compared with what it was."""

from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from recspark import columns as c


def row_hash(rows: DataFrame) -> Any:
    """64-bit hash of all columns. Spark's hash skips nulls, so the list of null columns is hashed as well."""
    return F.xxhash64(*map(_hashable, rows.schema), F.array(*(_quoted(name).isNull() for name in rows.columns)))


def _hashable(field: T.StructField) -> Any:
    """A column as it is hashed: a map as its sorted entries, since maps have no order; other nested types as JSON."""
    column, nested = _quoted(field.name), (T.MapType, T.StructType, T.ArrayType)
    if isinstance(field.dataType, T.MapType) and not isinstance(field.dataType.valueType, nested):
        return F.sort_array(F.map_entries(column))
    return F.to_json(column) if isinstance(field.dataType, nested) else column


def _quoted(name: str) -> Any:
    return F.col(c.quoted(name))


def day_digests(rows: DataFrame, date_column: str) -> dict[str, str]:
    """day -> `count:hash` of its rows, which depends on neither their order nor the files."""
    days = rows.groupBy(F.col(date_column).cast("date").cast("string").alias("day"))
    return {str(r.day): f"{r.n}:{r.h}" for r in days.agg(F.count("*").alias("n"), rows_hash(rows).alias("h")).collect()}


def rows_hash(rows: DataFrame) -> Any:
    """An aggregate: the sum of the rows' hashes, as decimals, which do not overflow."""
    return F.sum(row_hash(rows).cast("decimal(38,0)"))
