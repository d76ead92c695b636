"""Encode texts and media in Spark tasks; and a pandas UDF of the same for notebooks and SQL."""

import importlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import Column, DataFrame

from recspark import columns as c
from recspark.config.content import Encoder
from recspark.encoders import media
from recspark.encoders.vectors import array_to_vectors, has_content
from recspark.encoders.weights import loaded_version, locate, version_of
from recspark.errors import ConfigError
from recspark.tables import item_embeddings as table

if TYPE_CHECKING:  # these import torch, which only tasks need
    from recspark.encoders.audio import AudioEncoder
    from recspark.encoders.image import ImageEncoder
    from recspark.encoders.text import TextEncoder
    from recspark.encoders.video import VideoEncoder

    ContentEncoder = TextEncoder | ImageEncoder | AudioEncoder | VideoEncoder

MIN_ROWS_PER_TASK = 512  # a second or two of short texts: fewer are not worth loading the model again (10 s)
MAX_ROWS_PER_TASK = 20_000  # limits the work to repeat when a task is lost


def embed_new(items: DataFrame, existing: DataFrame, encoder_name: str, revision: str | None = None) -> DataFrame:
    """Rows of item_embeddings for the items whose content is not in `existing` with this encoder's version."""
    return embed(table.only_new(items, existing, locate(encoder_name, revision).version), encoder_name, revision)


def embed(items: DataFrame, encoder_name: str, revision: str | None = None) -> DataFrame:
    """Rows of item_embeddings for every row of `items` (item_id, text, content_hash; counted once, then read again).

    Lazy, and each reading of the result runs the model again: persist it if it is read twice (a merge does).

    Raises: ConfigError if the encoder is missing; in a task, if the worker has another version of it.
    """
    one = Encoder(encoder=encoder_name, revision=revision)
    return table.build(embed_with_reasons(table.inputs(items, one), one))


def embed_with_reasons(inputs: DataFrame, one: Encoder, roots: Sequence[str] = ()) -> DataFrame:
    """`embed` for any encoder and the rows of `item_embeddings.inputs`, as uncompacted float32. `roots`: where
    files that rows name may lie.

    Returns: rows of item_embeddings with one more column, `reason`: why the embedding is null although the item has an
    input.
    """
    loaded, version = loaded_version(one), version_of(one)
    tasks = num_tasks(inputs.count(), inputs.sparkSession.sparkContext.defaultParallelism)
    rows = inputs.select(c.ITEM_ID, c.CONTENT_HASH, table.INPUT).repartition(tasks)

    def embed_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:  # without rows the model is not loaded
                yield _embed_batch(batch, task_encoder(one, loaded), version, one.modality, roots)

    return rows.mapInArrow(embed_batches, f"{table.SCHEMA}, {c.REASON} string")


def _embed_batch(
    batch: pa.RecordBatch, encoder: "ContentEncoder", version: str, modality: str, roots: Sequence[str]
) -> pa.RecordBatch:
    cells = batch.column(table.INPUT).cast(pa.binary()).to_pylist()  # bytes: a Spark string may hold any
    if modality != "text":  # paths of files; their content is read a chunk at a time
        names = [cell if cell is None else cell.decode(errors="replace") for cell in cells]
        cells = [name if name is None else partial(media.read, name, roots) for name in names]
    vectors, reasons = encoder.encode_with_reasons(cells)
    columns = {
        c.ITEM_ID: batch.column(c.ITEM_ID),
        c.ENCODER: pa.repeat(version, batch.num_rows),
        c.CONTENT_HASH: batch.column(c.CONTENT_HASH),
        c.EMBEDDING: array_to_vectors(vectors),
        c.DIM: pa.repeat(pa.scalar(encoder.dim, pa.int32()), batch.num_rows),
        c.REASON: pa.array(reasons, pa.string()),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def embed_udf(encoder_name: str, revision: str | None = None) -> Callable[..., Column]:
    """A pandas UDF text -> array<float> for notebooks; for SQL `spark.udf.register("embed", embed_udf(name))`.

    Null if a text has no content.

    Raises: ConfigError if the encoder is missing.
    """
    import pandas as pd  # the annotations below are read by Spark
    from pyspark.sql.pandas.functions import pandas_udf

    one = Encoder(encoder=encoder_name, revision=revision)
    version = loaded_version(one)

    def embed_text(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for texts in batches:
            vectors = task_encoder(one, version).encode(texts.tolist())
            good = has_content(vectors) & np.isfinite(vectors).all(axis=1)
            cells = [vector if ok else None for vector, ok in zip(vectors, good, strict=True)]
            yield pd.Series(cells, dtype=object)

    udf: Callable[..., Column] = pandas_udf(embed_text, "array<float>")  # type: ignore[call-overload]  # its hints ask for a functionType
    return udf


def num_tasks(rows: int, slots: int) -> int:
    """One task a slot, but fewer if a task would have less than MIN_ROWS_PER_TASK, more if above MAX_ROWS_PER_TASK."""
    return max(1, min(slots, math.ceil(rows / MIN_ROWS_PER_TASK)), math.ceil(rows / MAX_ROWS_PER_TASK))


def task_encoder(one: Encoder, version: str) -> "ContentEncoder":
    """The encoder of this Python worker, on this task's device and with this task's cores. Call it inside a task.

    It is loaded once, since Spark keeps the worker process for later tasks. Worker processes cannot share a model, so a
    GPU holds one copy for each task that runs on it at the same time; with `spark.task.resource.gpu.amount=1`, one.

    Raises: ConfigError if the worker's weights differ from the driver's: its vectors would have a wrong version.
    """
    context = TaskContext.get()
    assert context is not None, "only in a task"
    cores = max(1, context.cpus())
    import torch

    os.environ.setdefault("RAYON_NUM_THREADS", str(cores))  # the tokenizer's threads, read once at its first batch
    torch.set_num_threads(cores)
    gpu = context.resources().get("gpu")
    device = device_for(gpu.addresses if gpu else [], context.partitionId(), torch.cuda.device_count())
    encoder = _load(one.modality, one.encoder, one.revision, device)
    if encoder.version != version:
        raise ConfigError(
            f"encoder {one.encoder!r}: this worker has {encoder.version}, the driver has {version}; "
            "install the same weights on every node"
        )
    return encoder


def device_for(gpu_addresses: Sequence[str], partition_id: int, num_gpus: int) -> str:
    """The GPU that Spark assigned to the task; if it assigned none, GPUs in turn by partition; without a GPU the CPU.

    Modulo `num_gpus`, because an executor that sees only some of the GPUs numbers those from 0.
    """
    if num_gpus == 0:
        return "cpu"
    given = bool(gpu_addresses) and gpu_addresses[0].isdigit()
    return f"cuda:{(int(gpu_addresses[0]) if given else partition_id) % num_gpus}"


@lru_cache(maxsize=2)
def _load(modality: str, name: str, revision: str | None, device: str) -> "ContentEncoder":
    encoder: ContentEncoder = importlib.import_module(f"recspark.encoders.{modality}").load(name, revision, device)
    return encoder
