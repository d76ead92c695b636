"""item_embeddings: one vector per item and encoder version; and which items must still be embedded."""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions
from recspark.config.content import Encoder
from recspark.warehouse.store import Table

SCHEMA = f"{c.ITEM_ID} string, {c.ENCODER} string, {c.CONTENT_HASH} string, {c.EMBEDDING} binary, {c.DIM} int"
INPUT = "input"
TABLE = Table(
    noun="item_embeddings",
    ddl=SCHEMA,
    key=(c.ITEM_ID, c.ENCODER),
    row="The vector of an item by one version of an encoder.",
    comments={
        c.ENCODER: "Encoder and its version. Example: all-MiniLM-L6-v2@9af1c2",
        c.EMBEDDING: "Vector, float32 little-endian unless the encoder's storage says otherwise; null without content.",
        c.DIM: "Numbers in the vector. Example: 384",
    },
)


def only_new(items: DataFrame, existing: DataFrame, encoder_version: str) -> DataFrame:
    """The rows of `items` (item_id, content_hash, ...) whose present content this encoder version has not embedded.

    `existing` is item_embeddings. Content that changes and changes back is embedded again: the table keeps one row per
    item and encoder.
    """
    known = existing.where(F.col(c.ENCODER) == F.lit(encoder_version)).select(c.ITEM_ID, c.CONTENT_HASH)
    return items.join(known, on=[c.ITEM_ID, c.CONTENT_HASH], how="left_anti")


def inputs(items: DataFrame, one: Encoder) -> DataFrame:
    """(item_id, content_hash, input): the input of this encoder for every row of `items`, and its hash.

    Raises: ConfigError and SchemaError where `input` is no text over the columns of items.
    """
    text = expressions.column(items, one.sql, "text", "item_embeddings.input", "items").alias(INPUT)
    rows = items.select(c.ITEM_ID, c.CONTENT_HASH, text)
    if one.input is None:  # content_hash in `items` is that of text and media
        return rows
    return rows.withColumn(c.CONTENT_HASH, F.sha2(F.coalesce(INPUT, F.lit("")), 256))


def build(vectors: DataFrame) -> DataFrame:
    """Rows of the table from fresh vectors: embedding is dim x float32 little-endian, null without content."""
    return vectors.select(*(F.col(field.name).cast(field.dataType) for field in TABLE.schema))
