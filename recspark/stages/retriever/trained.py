"""Retrievers that are models of their own, each in a folder inside the bundle's: counted by Spark (`co_occurrence`), or
trained by TorchDistributor on the shards of the histories (TRAINABLE)."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from pyspark.sql import DataFrame, SparkSession

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.retrievers import CoOccurrence
from recspark.config.schema import Config
from recspark.histories import from_arrow
from recspark.models.retrievers import co_occurrence
from recspark.stages.launch import launch
from recspark.stages.retriever.gram import ARROW, SCHEMA, merge, pack_batch, unpack
from recspark.training.retrieval.job import TRAINABLE, TRAINER, RetrieverJob, RetrieverTask

CO_OCCURRENCE = "co_occurrence"
ROWS_A_STRIP = 1024


@dataclass(frozen=True)
class TrainedRetriever:
    """A model and the module of recspark/models/retrievers that scores with it.

    `vectors_ID`: the item vectors, if a score is a product with them. `target`: the only scenario_idx that it scores;
    None: all.
    """

    module: ModuleType
    model: Any
    vectors_ID: Array | None
    target: int | None


def names(config: Config) -> tuple[str, ...]:
    """Those that the configuration turns on."""
    return tuple(name for name in (CO_OCCURRENCE, *TRAINABLE) if name in config.retriever.names)


def read(bundle: str, name: str) -> TrainedRetriever:
    """One of a bundle; its large arrays are memory-mapped.

    Raises: DataError if it is not there.
    """
    manifest = model_folder.read_manifest(f"{bundle}/{name}")
    module = importlib.import_module(f"recspark.models.retrievers.{name}")  # some of them load torch
    arrays = {array: np.asarray(model_folder.open_array(f"{bundle}/{name}", array)) for array in manifest["arrays"]}
    model = module.from_arrays(manifest["model"], arrays)
    vectors_ID = None if name == CO_OCCURRENCE else module.vectors(model)
    return TrainedRetriever(module, model, vectors_ID, manifest.get("target"))


def train(spark: SparkSession, config: Config, bundles: Sequence[tuple[str, str, dict[str, int]]]) -> int:
    """Train the models that are missing in some bundles, all in one launch of one process: a retriever is small.

    `bundles`: (bundle's folder, histories' folder, raw scenario -> scenario_idx).

    Returns: how many models were missing.
    Raises: TrainingError, DataError.
    """
    tasks = tuple(
        RetrieverTask(name, bundle, histories, scenarios)
        for bundle, histories, scenarios in bundles
        for name in names(config)
        if name != CO_OCCURRENCE and not model_folder.exists(f"{bundle}/{name}")
    )
    if tasks:
        job = RetrieverJob(tasks, config.retriever, config.seed)
        launch(spark, "retriever", TRAINER, job, num_processes=1, use_gpu=False)
    return len(tasks)


def count_pairs(
    histories: DataFrame, num_items: int, counts_I: Array, settings: CoOccurrence, bundle: str
) -> co_occurrence.Model:
    """Fit `co_occurrence` on HISTORIES rows and save it: Spark adds up the pairs in strips of items, and each strip is
    reduced to the most similar items before it comes to the driver. `counts_I`: positive events of every item.

    Memory: a task holds the pairs of its users, then one strip; the driver items x neighbours x 12 bytes.
    """
    events = histories.select(c.ITEM_IDX, c.SCENARIO_IDX, "time", c.WEIGHT, c.VALUE, "price")
    strips = events.mapInArrow(partial(_pair_strips, num_items=num_items, settings=settings), SCHEMA)
    counts = counts_I.astype(np.float64)
    # Not a partial: Spark 4.2 reads the function's type hints, which a partial does not have.
    best = strips.groupBy("strip").applyInArrow(
        lambda parts: _best_of_strip(parts, num_items, counts, settings), SCHEMA
    )
    found = best.toArrow()
    parts = {
        strip: unpack(cell.as_buffer(), num_items)
        for strip, cell in zip(found.column("strip").to_pylist(), found.column("matrix"), strict=True)
    }
    rows = [min(ROWS_A_STRIP, num_items - low) for low in range(0, num_items, ROWS_A_STRIP)]
    complete = [parts.get(strip, sp.csr_matrix((size, num_items))) for strip, size in enumerate(rows)]
    model = co_occurrence.assemble(sp.vstack(complete, format="csr"), num_items, settings)
    manifest, arrays = co_occurrence.to_arrays(model)
    model_folder.save(f"{bundle}/{CO_OCCURRENCE}", {"model": manifest, "arrays": sorted(arrays)}, arrays)
    return model


def _pair_strips(batches: Iterator[pa.RecordBatch], num_items: int, settings: CoOccurrence) -> Iterator[pa.RecordBatch]:
    total = sp.csr_matrix((num_items, num_items))
    for batch in batches:
        for part in co_occurrence.pair_weights(from_arrow(batch), settings, num_items):
            total += part
    for strip, low in enumerate(range(0, num_items, ROWS_A_STRIP)):
        part = total[low : low + ROWS_A_STRIP]
        if part.nnz:
            yield pack_batch(strip, part)


def _best_of_strip(strips: pa.Table, num_items: int, counts_I: Array, settings: CoOccurrence) -> pa.Table:
    strip = strips.column("strip")[0].as_py()
    count = counts_I[strip * ROWS_A_STRIP : (strip + 1) * ROWS_A_STRIP]
    kept = co_occurrence.similarity(merge(strips, num_items), count, counts_I, settings)
    return pa.Table.from_batches([pack_batch(strip, kept)], schema=ARROW)
