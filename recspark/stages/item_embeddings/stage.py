"""What items say, show and sound like as vectors: the table for the night, for any number of encoders; and a pandas UDF
for notebooks and SQL."""

import importlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import lru_cache, reduce
from typing import TYPE_CHECKING

import fsspec
import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.content import Encoder
from recspark.config.schema import Config
from recspark.encoders.vectors import array_to_vectors, has_content
from recspark.encoders.weights import loaded_version, locate, version_of, versions
from recspark.errors import ConfigError
from recspark.stages.item_embeddings import compact as compact_embeddings
from recspark.stages.item_embeddings import facts as fact_embeddings
from recspark.summary import Summary
from recspark.tables import item_embeddings as table
from recspark.tables import rejected_events
from recspark.tables.item_facts import TABLE as ITEM_FACTS
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store

if TYPE_CHECKING:  # torch is loaded inside the tasks, where it is needed: a driver need not wait for it
    from recspark.encoders.audio import AudioEncoder
    from recspark.encoders.image import ImageEncoder
    from recspark.encoders.text import TextEncoder
    from recspark.encoders.video import VideoEncoder

    Encodes = TextEncoder | ImageEncoder | AudioEncoder | VideoEncoder

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
    one = Encoder(encoder=encoder_name, revision=revision)
    return table.build(embed_with_reasons(table.inputs(items, one), one))


def embed_with_reasons(inputs: DataFrame, one: Encoder) -> DataFrame:
    """As `embed`, of rows as `item_embeddings.inputs` makes them, for any encoder, as float32 of all its numbers; with
    a column more: `reason`, why the embedding of an item that has an input is null."""
    loaded, version = loaded_version(one), version_of(one)
    tasks = num_tasks(inputs.count(), inputs.sparkSession.sparkContext.defaultParallelism)
    rows = inputs.select(c.ITEM_ID, c.CONTENT_HASH, table.INPUT).repartition(tasks)

    def embed_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:  # no row, no model
                yield _embed_batch(batch, task_encoder(one, loaded), version, one.modality)

    return rows.mapInArrow(embed_batches, f"{table.SCHEMA}, {c.REASON} string")


def _embed_batch(batch: pa.RecordBatch, encoder: "Encodes", version: str, modality: str) -> pa.RecordBatch:
    cells = batch.column(table.INPUT).cast(pa.binary()).to_pylist()  # bytes: a Spark string may hold any
    if modality != "text":  # where the files lie; their bytes are read a chunk at a time
        cells = [cell if cell is None else cell.decode(errors="replace") for cell in cells]
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


def embed_udf(encoder_name: str, revision: str | None = None) -> Callable[..., object]:
    """A pandas UDF text -> array<float> for notebooks; for SQL `spark.udf.register("embed", embed_udf(name))`.

    Null where a text has no content. Raises ConfigError where the encoder is missing here.
    """
    import pandas as pd  # the annotations below are read by Spark
    from pyspark.sql.functions import pandas_udf

    one = Encoder(encoder=encoder_name, revision=revision)
    version = loaded_version(one)

    @pandas_udf("array<float>")
    def embed_text(batches: Iterator[pd.Series]) -> Iterator[pd.Series]:
        for texts in batches:
            vectors = task_encoder(one, version).encode(texts.tolist())
            good = has_content(vectors) & np.isfinite(vectors).all(axis=1)
            cells = [vector if ok else None for vector, ok in zip(vectors, good, strict=True)]
            yield pd.Series(cells, dtype=object)

    return embed_text


def num_tasks(rows: int, slots: int) -> int:
    """Enough to use the slots as far as each gets work worth loading a model for; more where tasks would grow long."""
    return max(1, min(slots, math.ceil(rows / MIN_ROWS_PER_TASK)), math.ceil(rows / MAX_ROWS_PER_TASK))


def task_encoder(one: Encoder, version: str) -> "Encodes":
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
    encoder = _load(one.modality, one.encoder, one.revision, device)
    if encoder.version != version:
        raise ConfigError(
            f"encoder {one.encoder!r}: this worker has {encoder.version}, the driver has {version}; "
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
def _load(modality: str, name: str, revision: str | None, device: str) -> "Encodes":
    encoder: Encodes = importlib.import_module(f"recspark.encoders.{modality}").load(name, revision, device)
    return encoder


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
        todo = table.inputs(items, one)
        if known and compact_embeddings.is_fitted(store, one):
            todo = table.only_new(todo, store.read(table.TABLE), version)
        require_file_system(todo, one)
        parts.append(embed_with_reasons(todo, one))
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
        stored, losses = compact_embeddings.compact(store, rows, settings.all, config.seed) if count else (rows, [])
        written = store.merge(table.TABLE, table.build(stored), {"fingerprint": fingerprint}) if count else None
    finally:
        rows.unpersist()
    note = "; ".join([note, *losses])
    return Summary("item_embeddings", items.count(), count, rejected, count == 0, note, written)


def require_file_system(inputs: DataFrame, one: Encoder) -> None:
    """Raises ConfigError where an input lies somewhere that this machine has no library for."""
    if one.modality == "text":
        return
    schemes = F.regexp_extract(table.INPUT, "^([a-z][a-z0-9+.-]+)://", 1)
    for row in inputs.select(schemes.alias("scheme")).distinct().collect():  # one row a kind of place
        try:
            fsspec.get_filesystem_class(row.scheme or "file")
        except ImportError as error:
            raise ConfigError(f"items: `{one.sql}` names files at {row.scheme}://: {error}") from None
        except ValueError:
            raise ConfigError(
                f"items: `{one.sql}` names files at {row.scheme}://, which fsspec does not know; expected paths or one "
                f"of {', '.join(sorted(fsspec.available_protocols()))}"
            ) from None
