"""The encoder `facts@<name of the model>`: item vectors from the table item_facts, rows of item_embeddings.

Its model is trained where there is none for the configuration, and again when the facts have grown; meanwhile an item
that is new, or whose facts have changed, is placed by its entities.
"""

import logging
from collections.abc import Iterator

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
from recspark.encoders.weights import versions
from recspark.errors import DataError
from recspark.stages.launch import launch
from recspark.tables import item_embeddings as table
from recspark.tables.item_facts import TABLE as ITEM_FACTS
from recspark.training.content import facts as fact_job
from recspark.warehouse.store import Store, rows_hash

log = logging.getLogger(__name__)

PREFIX = "facts@"
FACTS, DIGEST, CELL = "_facts", "_digest", "_cell"
NUM_FACTS = "num_facts"


def encoders(store: Store, config: Config) -> tuple[str, ...]:
    """The versions of all encoders of a configuration: of texts, then of facts. Raises DataError where facts are
    encoded and no model is trained yet."""
    found = versions(config.item_embeddings)
    if not is_on(config):
        return found
    name = _newest(store, config)
    if name is None:
        raise DataError("item_facts.embedding: no model is trained yet; run jobs/item_embeddings.py first")
    return (*found, PREFIX + name)


def is_on(config: Config) -> bool:
    return config.item_facts is not None and config.item_facts.embedding is not None


def refresh(store: Store, config: Config, force: bool = False) -> str:
    """Train if it is time; returns a note. Raises DataError without facts, TrainingError when the process was lost."""
    settings = config.item_facts.embedding  # type: ignore[union-attr]
    facts = store.read(ITEM_FACTS)
    present = facts.agg(F.count("*").alias(NUM_FACTS), rows_hash(facts).alias("content")).first()
    if not present[NUM_FACTS]:
        raise DataError("item_facts.embedding: item_facts is empty; mend item_facts.relations, or leave embedding out")
    had = _newest(store, config)
    if had is not None and not force:
        trained = model_folder.read_manifest(_folder(store, had))
        if present[NUM_FACTS] <= trained[NUM_FACTS] * (1 + settings.growth):
            return f"MRR of held-out facts {trained['mrr']:.3f}"
    name = f"{_configuration(store, config)}-{store.fingerprint(present['content'])}"
    log.info("item_facts: training on %s facts", f"{present[NUM_FACTS]:,}")
    model_folder.remove(store.models(ITEM_FACTS.noun))  # of other configurations and of trainings cut short, too
    fact_job.write_facts(_folder(store, name), *_numbered(facts))
    asked = {
        "folder": _folder(store, name),
        "settings": settings.model_dump(exclude={"growth"}),
        "seed": config.seed,
        "about": {NUM_FACTS: present[NUM_FACTS]},
    }
    figures = launch(store.spark, ITEM_FACTS.noun, fact_job.run, asked, num_processes=1, use_gpu=False)
    return f"trained, MRR of held-out facts {figures['mrr']:.3f}"


def embed_new(store: Store, items: DataFrame, existing: DataFrame | None, version: str) -> DataFrame:
    """Rows of item_embeddings, and a null `reason`, of the items whose vector of this version is not in `existing`."""
    rows = embed(items, store.read(ITEM_FACTS), _folder(store, version.removeprefix(PREFIX)), version)
    if existing is None:
        return rows
    cell = F.coalesce(c.EMBEDDING, F.lit(b"")).alias(CELL)
    had = existing.where(F.col(c.ENCODER) == F.lit(version)).select(c.ITEM_ID, c.CONTENT_HASH, cell)
    return rows.select("*", cell).join(had, on=[c.ITEM_ID, c.CONTENT_HASH, CELL], how="left_anti").drop(CELL)


def embed(items: DataFrame, facts: DataFrame, folder: str, version: str) -> DataFrame:
    """Rows of item_embeddings, and a null `reason`, of every item; the embedding is null without a known fact."""
    # item_id is the key of both
    rows = items.select(c.ITEM_ID, c.CONTENT_HASH).join(_of_items(facts), on=c.ITEM_ID, how="left")

    def encode_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if batch.num_rows:
                yield _encode_batch(batch, fact_job.read(folder), version)

    return rows.mapInArrow(encode_batches, f"{table.SCHEMA}, {c.REASON} string")


def _encode_batch(batch: pa.RecordBatch, trained: fact_job.Trained, version: str) -> pa.RecordBatch:
    cells = batch.column(FACTS)
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


def _of_items(facts: DataFrame) -> DataFrame:
    """(item_id, facts in order, their hash), a row an item."""
    listed = F.sort_array(F.collect_list(F.struct(c.RELATION, c.ENTITY))).alias(FACTS)
    return facts.groupBy(c.ITEM_ID).agg(listed).withColumn(DIGEST, F.xxhash64(FACTS))


def _numbered(facts: DataFrame) -> tuple[dict[str, pa.DictionaryArray], Array]:
    """Facts as numbers in an order that the partitioning has no part in, and the hash of every item's."""
    items = _of_items(facts).toArrow().sort_by(c.ITEM_ID).combine_chunks()
    cells = items[FACTS].combine_chunks()
    flat = cells.flatten()
    columns = {name: flat.field(name).dictionary_encode() for name in (c.RELATION, c.ENTITY)}
    owner = pc.list_parent_indices(cells).cast(pa.int32())
    columns["item"] = pa.DictionaryArray.from_arrays(owner, items[c.ITEM_ID].combine_chunks())
    return columns, items[DIGEST].to_numpy()


def _configuration(store: Store, config: Config) -> str:
    return store.fingerprint(config.digest(ITEM_FACTS.noun), config.seed)


def _folder(store: Store, name: str) -> str:
    return f"{store.models(ITEM_FACTS.noun)}/{name}"


def _newest(store: Store, config: Config) -> str | None:
    """The model trained for the configuration, of which there is at most one."""
    fs, root = fsspec.core.url_to_fs(store.models(ITEM_FACTS.noun))
    if not fs.exists(root):
        return None
    fs.invalidate_cache(root)
    names = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)]
    own = [name for name in names if name.startswith(f"{_configuration(store, config)}-")]
    return next((name for name in sorted(own) if model_folder.exists(_folder(store, name))), None)
