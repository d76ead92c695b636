"""The encoder `facts@<name of the model>`: item vectors from the table item_facts, as rows of item_embeddings.

Its model is trained if there is none for the configuration, and again when there are many more facts. In between, a new
item, or one whose facts changed, gets its vector from its entities.
"""

import logging
from collections.abc import Iterable, Iterator
from datetime import date

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.schema import Config
from recspark.encoders.vectors import array_to_vectors
from recspark.errors import DataError
from recspark.stages.item_embeddings.encoders import FACT_MODEL, FACTS
from recspark.stages.launch import launch
from recspark.tables import item_embeddings as table
from recspark.tables.item_facts import TABLE as ITEM_FACTS
from recspark.training.content import facts as fact_job
from recspark.warehouse import artifacts
from recspark.warehouse.digests import rows_hash
from recspark.warehouse.store import Store

log = logging.getLogger(__name__)

LISTED, DIGEST, CELL = "_facts", "_digest", "_cell"
NUM_FACTS = "num_facts"


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> str:
    """Train the model of facts if there is none or the facts have grown, and point the night to it.

    Returns: a note for the summary.
    Raises: DataError without facts, TrainingError if the process was lost.
    """
    assert config.item_facts is not None and config.item_facts.embedding is not None
    settings = config.item_facts.embedding
    facts = store.read(ITEM_FACTS)
    present = facts.agg(F.count("*").alias(NUM_FACTS), rows_hash(facts).alias("content")).collect()[0]
    if not present[NUM_FACTS]:
        raise DataError("item_facts.embedding: item_facts is empty; fix item_facts.relations, or leave embedding out")
    version = artifacts.fingerprint(FACT_MODEL, config)
    before = _trained(store, version)
    if before is not None and not force:
        trained = model_folder.read_manifest(before)
        if present[NUM_FACTS] <= trained[NUM_FACTS] * (1 + settings.growth):
            artifacts.point(store, config, FACT_MODEL, run_date, before)
            return f"MRR of held-out facts {trained['mrr']:.3f}"
    path = artifacts.folder(
        store, FACT_MODEL, f"{version}-{artifacts.fingerprint(FACT_MODEL, config, present['content'])}"
    )
    log.info("item_facts: training on %s facts", f"{present[NUM_FACTS]:,}")
    if force:
        model_folder.remove(path)
    fact_job.write_facts(path, *_numbered(facts))
    job = fact_job.FactsJob(path, settings, config.seed, about={NUM_FACTS: present[NUM_FACTS]})
    figures = launch(store.spark, ITEM_FACTS.noun, fact_job.train, job, num_processes=1, use_gpu=False)
    artifacts.point(store, config, FACT_MODEL, run_date, path)
    _keep_only(store, path)
    return f"trained, MRR of held-out facts {figures['mrr']:.3f}"


def embed_new(store: Store, items: DataFrame, existing: DataFrame | None, version: str) -> DataFrame:
    """Rows of item_embeddings, and a null `reason`, of the items whose vector of this version is not in `existing`."""
    rows = embed(
        items, store.read(ITEM_FACTS), artifacts.folder(store, FACT_MODEL, version.removeprefix(FACTS)), version
    )
    if existing is None:
        return rows
    cell = F.coalesce(c.EMBEDDING, F.lit(b"")).alias(CELL)
    stored = existing.where(F.col(c.ENCODER) == F.lit(version)).select(c.ITEM_ID, c.CONTENT_HASH, cell)
    return rows.select("*", cell).join(stored, on=[c.ITEM_ID, c.CONTENT_HASH, CELL], how="left_anti").drop(CELL)


def embed(items: DataFrame, facts: DataFrame, folder: str, version: str) -> DataFrame:
    """Rows of item_embeddings, and a null `reason`, of every item; the embedding is null without a known fact."""
    # item_id is the key of both
    rows = items.select(c.ITEM_ID, c.CONTENT_HASH).join(_facts_by_item(facts), on=c.ITEM_ID, how="left")

    def encode_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield _encode_batch(batch, fact_job.read(folder), version)

    return rows.mapInArrow(encode_batches, f"{table.SCHEMA}, {c.REASON} string")


def _encode_batch(batch: pa.RecordBatch, trained: fact_job.Trained, version: str) -> pa.RecordBatch:
    cells = batch.column(LISTED)
    flat = cells.flatten()
    facts = {name: flat.field(name) for name in (c.RELATION, c.ENTITY)}
    facts["owner"] = pc.list_parent_indices(cells).to_numpy(zero_copy_only=False).astype(np.int64)
    digest = pc.fill_null(batch.column(DIGEST), 0).to_numpy(zero_copy_only=False)
    vectors = fact_job.vectors_of(trained, batch.column(c.ITEM_ID), digest, facts)
    columns = {
        c.ITEM_ID: batch.column(c.ITEM_ID),
        c.ENCODER: pa.repeat(version, batch.num_rows),
        c.CONTENT_HASH: batch.column(c.CONTENT_HASH),
        c.EMBEDDING: array_to_vectors(vectors),
        c.DIM: pa.repeat(pa.scalar(vectors.shape[1], pa.int32()), batch.num_rows),
        c.REASON: pa.nulls(batch.num_rows, pa.string()),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _facts_by_item(facts: DataFrame) -> DataFrame:
    """(item_id, sorted facts, their hash), one row for each item."""
    listed = F.sort_array(F.collect_list(F.struct(c.RELATION, c.ENTITY))).alias(LISTED)
    return facts.groupBy(c.ITEM_ID).agg(listed).withColumn(DIGEST, F.xxhash64(LISTED))


def _numbered(facts: DataFrame) -> tuple[dict[str, pa.DictionaryArray], Array]:
    """Facts as numbers, in an order that does not depend on the partitioning; and the hash of each item's facts."""
    items = _facts_by_item(facts).toArrow().sort_by(c.ITEM_ID).combine_chunks()
    cells = items[LISTED].combine_chunks()
    flat = cells.flatten()
    columns = {name: flat.field(name).dictionary_encode() for name in (c.RELATION, c.ENTITY)}
    owner = pc.list_parent_indices(cells).cast(pa.int32())
    columns["item"] = pa.DictionaryArray.from_arrays(owner, items[c.ITEM_ID].combine_chunks())
    return columns, items[DIGEST].to_numpy()


def _keep_only(store: Store, path: str) -> None:
    """Remove the other models, which this one replaces, and what interrupted trainings have left."""
    fs, root = fsspec.core.url_to_fs(store.models(FACT_MODEL))
    fs.invalidate_cache(root)
    for found in fs.ls(root, detail=False):
        if fs.isdir(found) and artifacts.name_of(str(found)) != artifacts.name_of(path):
            model_folder.remove(artifacts.folder(store, FACT_MODEL, artifacts.name_of(str(found))))


def _trained(store: Store, version: str) -> str | None:
    """The folder of the model trained with this configuration and code; there is at most one."""
    fs, root = fsspec.core.url_to_fs(store.models(FACT_MODEL))
    if not fs.exists(root):
        return None
    fs.invalidate_cache(root)
    names = sorted(artifacts.name_of(str(path)) for path in fs.ls(root, detail=False))
    paths = (artifacts.folder(store, FACT_MODEL, name) for name in names if name.startswith(f"{version}-"))
    return next((path for path in paths if model_folder.exists(path)), None)
