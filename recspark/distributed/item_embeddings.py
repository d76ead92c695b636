"""Item texts to vectors in Spark: the table for the night, and a pandas UDF for notebooks and SQL. One encoder core."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import lru_cache, reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame

from recspark import columns as c
from recspark.config import Config
from recspark.distributed import fact_embeddings
from recspark.encoders.vectors import array_to_vectors, has_content
from recspark.encoders.weights import locate, versions
from recspark.errors import ConfigError
from recspark.summary import Summary
from recspark.tables import item_embeddings as table
from recspark.tables import rejected_events
from recspark.tables.item_facts import TABLE as ITEM_FACTS
from recspark.tables.items import TABLE as ITEMS
from recspark.tables.store import Store

if TYPE_CHECKING:  # torch is loaded inside the tasks, where it is needed: a driver need not wait for it
    from recspark.encoders.text import TextEncoder

MIN_ROWS_PER_TASK = 512  # a second or two of short texts: for fewer, loading the model (10 s) once more is a waste
MAX_ROWS_PER_TASK = 20_000  # what a lost task may have to do again


def embed_new(items: DataFrame, existing: DataFrame, encoder_name: str, revision: str | None = None) -> DataFrame:
    """Rows of item_embeddings for the items whose content or encoder version `existing` does not hold yet."""
    return embed(table.only_new(items, existing, locate(encoder_name, revision).version), encoder_name, revision)


def embed(items: DataFrame, encoder_name: str, revision: str | None = None) -> DataFrame:
    """Rows of item_embeddings for every row of `items` (item_id, text, content_hash; counted once, then read again).

    Lazy, and each reading of the result runs the model again: persist it if it is read twice (a merge does).
    Raises ConfigError where the encoder is missing here; on a worker, where that has another version.
    """
    return table.build(embed_with_reasons(items, encoder_name, revision))


def embed_with_reasons(items: DataFrame, encoder_name: str, revision: str | None = None) -> DataFrame:
    """As `embed`, with a column more: `reason`, why the embedding of an item that has a text is null."""
    version = locate(encoder_name, revision).version
    tasks = num_tasks(items.count(), items.sparkSession.sparkContext.defaultParallelism)
    rows = items.select(c.ITEM_ID, c.TEXT, c.CONTENT_HASH).repartition(tasks)

    def embed_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:  # no row, no model
                yield _embed_batch(batch, task_encoder(encoder_name, revision, version))

    return rows.mapInArrow(embed_batches, f"{table.SCHEMA}, {c.REASON} string")


def _embed_batch(batch: pa.RecordBatch, encoder: "TextEncoder") -> pa.RecordBatch:
    texts = batch.column(c.TEXT).cast(pa.binary()).to_pylist()  # bytes: a Spark string may hold any
    vectors, reasons = encoder.encode_with_reasons(texts)
    columns = {
        c.ITEM_ID: batch.column(c.ITEM_ID),
        c.ENCODER: pa.repeat(encoder.version, batch.num_rows),
        c.CONTENT_HASH: batch.column(c.CONTENT_HASH),
        c.EMBEDDING: array_to_vectors(vectors),
        c.DIM: pa.repeat(pa.scalar(encoder.dim, pa.int32()), batch.num_rows),
        c.REASON: pa.array(reasons, pa.string()),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def embed_udf(encoder_name: str, revision: str | None = None) -> Callable[..., object]:
    """A pandas UDF text -> array<float> for notebooks; for SQL `spark.udf.register("embed", embed_udf(name))`.

    Null where a text has no content. Raises ConfigError where the encoder is missing here.
    """
    import pandas as pd  # the annotations below are read by Spark
    from pyspark.sql.functions import pandas_udf

    version = locate(encoder_name, revision).version

    @pandas_udf("array<float>")
    def embed_text(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for texts in batches:
            vectors = task_encoder(encoder_name, revision, version).encode(texts.tolist())
            good = has_content(vectors) & np.isfinite(vectors).all(axis=1)
            cells = [vector if ok else None for vector, ok in zip(vectors, good, strict=True)]
            yield pd.Series(cells, dtype=object)

    return embed_text


def num_tasks(rows: int, slots: int) -> int:
    """Enough to use the slots as far as each gets work worth loading a model for; more where tasks would grow long."""
    return max(1, min(slots, math.ceil(rows / MIN_ROWS_PER_TASK)), math.ceil(rows / MAX_ROWS_PER_TASK))


def task_encoder(name: str, revision: str | None, version: str) -> "TextEncoder":
    """The encoder of this Python worker, on this task's device and with this task's cores. Call it inside a task.

    Loaded once: Spark keeps the worker process for later tasks. Worker processes cannot share a model, so a GPU holds
    one copy for each task that runs on it at a time: `spark.task.resource.gpu.amount=1` makes that one.
    Raises ConfigError where the worker's copy differs from the driver's: its vectors would stand under a wrong version.
    """
    context = TaskContext.get()
    assert context is not None, "only in a task"
    cores = max(1, context.cpus())
    import torch

    os.environ.setdefault("RAYON_NUM_THREADS", str(cores))  # the tokenizer's threads; it looks once, at its first batch
    torch.set_num_threads(cores)
    gpu = context.resources().get("gpu")
    device = device_for(gpu.addresses if gpu else [], context.partitionId(), torch.cuda.device_count())
    encoder = _load(name, revision, device)
    if encoder.version != version:
        raise ConfigError(
            f"encoder {name!r}: this worker has {encoder.version}, the driver has {version}; "
            "install the same weights on every node"
        )
    return encoder


def device_for(gpu_addresses: Sequence[str], partition_id: int, num_gpus: int) -> str:
    """The GPU that Spark gave to the task; where Spark knows of none, the tasks take turns; the CPU without any.

    The remainder, because an executor that sees a part of the GPUs numbers them from 0 again.
    """
    if num_gpus == 0:
        return "cpu"
    given = bool(gpu_addresses) and gpu_addresses[0].isdigit()
    return f"cuda:{(int(gpu_addresses[0]) if given else partition_id) % num_gpus}"


@lru_cache(maxsize=2)
def _load(name: str, revision: str | None, device: str) -> "TextEncoder":
    from recspark.encoders import text

    return text.load(name, revision, device)


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Embed what is new or changed among the items; nothing is committed when nothing is."""
    settings, found = config.item_embeddings, versions(config.item_embeddings)
    inputs, note = [store.token(ITEMS)], ", ".join(found)
    with_facts = fact_embeddings.is_on(config)
    if with_facts:
        trained = fact_embeddings.refresh(store, config, force)
        of_facts = fact_embeddings.encoders(store, config)[-1]
        inputs, note = [*inputs, of_facts, store.token(ITEM_FACTS)], f"{note}, {of_facts} ({trained})"
    fingerprint = store.fingerprint(config.digest("item_embeddings"), *found, *inputs)
    if not force and store.is_fresh(table.TABLE, fingerprint):
        return Summary("item_embeddings", skipped=True, note=note)
    items = store.read(ITEMS)
    known = store.exists(table.TABLE) and not force
    parts = []
    for version, one in zip(found, settings.all, strict=True):
        todo = table.only_new(items, store.read(table.TABLE), version) if known else items
        parts.append(embed_with_reasons(todo, one.encoder, one.revision))
    if with_facts:
        had = store.read(table.TABLE) if known else None
        parts.append(fact_embeddings.embed_new(store, items, had, of_facts))
    rows = reduce(DataFrame.unionByName, parts).persist()  # one merge, one commit; and a merge reads its source twice
    try:
        counts = {row[0]: row[1] for row in rows.groupBy(c.REASON).count().collect()}
        count = sum(counts.values())
        rejected = {reason: n for reason, n in counts.items() if reason is not None}
        if rejected:
            kept = (c.ITEM_ID, c.ENCODER, c.CONTENT_HASH)
            rejected_events.add(store, rejected_events.of(rows, kept, run_date))
        written = store.merge(table.TABLE, table.build(rows), {"fingerprint": fingerprint}) if count else None
    finally:
        rows.unpersist()
    return Summary("item_embeddings", items.count(), count, rejected, count == 0, note, written)
