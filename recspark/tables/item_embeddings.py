"""item_embeddings: one vector per item and encoder version; which items still lack theirs, and which can have none."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.tables.store import Table

SCHEMA = "item_id string, encoder string, content_hash string, embedding binary, dim int"
TABLE = Table(noun="item_embeddings", ddl=SCHEMA, key=(c.ITEM_ID, c.ENCODER))


def only_new(items: DataFrame, existing: DataFrame, encoder_version: str) -> DataFrame:
    """The rows of `items` (item_id, content_hash, ...) whose present content this encoder version has not embedded.

    `existing` is item_embeddings. Content that changes and changes back is embedded again: the table keeps one row per
    item and encoder.
    """
    known = existing.where(F.col(c.ENCODER) == F.lit(encoder_version)).select(c.ITEM_ID, c.CONTENT_HASH)
    return items.join(known, on=[c.ITEM_ID, c.CONTENT_HASH], how="left_anti")


def build(vectors: DataFrame) -> DataFrame:
    """Rows of the table from fresh vectors: embedding is dim x float32 little-endian, null without content."""
    return vectors.select(*(F.col(field.name).cast(field.dataType) for field in TABLE.schema))
