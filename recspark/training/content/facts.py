"""Train item vectors on the facts of a folder, in the one process of a launch, and load them. Needs no Spark.

Memory: 12 bytes a fact beside their names, and the vectors.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recspark import model_folder
from recspark.arrays import Array
from recspark.config.content import FactEmbedding
from recspark.encoders import graph

log = logging.getLogger("recspark.item_facts")

NAMES = ("item", "relation", "entity")
VECTORS = ("items_ID", "relations_RD", "entities_ED", "centres_RD")
FACTS, DIGEST = "facts", "digest"


@dataclass(frozen=True)
class FactsJob:
    """`folder`: the model's, with its facts inside (see `write_facts`); `about`: goes into its manifest."""

    folder: str
    settings: FactEmbedding
    seed: int
    about: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """`names`: of items, relations and entities in the order of the vectors; `digest_I`: hash of an item's facts."""

    model: graph.Model
    names: dict[str, pa.Array]
    digest_I: Array


def write_facts(folder: str, facts: Mapping[str, pa.DictionaryArray], digest_I: Array) -> None:
    """Save facts (item, relation, entity) for `train`; `digest_I` in the order of the items' dictionary."""
    arrays = {name: facts[name].indices.to_numpy().astype(np.int32) for name in NAMES}
    names = {f"{name}.json": json.dumps(facts[name].dictionary.to_pylist()) for name in NAMES}
    model_folder.save(f"{folder}/{FACTS}", {}, {**arrays, DIGEST: digest_I}, texts=names)


def train(job: FactsJob) -> dict[str, float]:
    """Train on the facts of `write_facts`, save the model, and remove the facts.

    Returns: the figures on held-out facts.
    """
    source = f"{job.folder}/{FACTS}"
    texts = {f"{name}.json": model_folder.read_text(source, f"{name}.json") for name in NAMES}
    item, relation, entity = (np.array(model_folder.open_array(source, name), np.int64) for name in NAMES)
    num_items, num_relations, num_entities = (len(json.loads(text)) for text in texts.values())
    facts = graph.Facts(item, relation, entity, num_items, num_relations, num_entities)
    model, figures = graph.fit(facts, job.settings, job.seed, log.info)
    arrays = {name: getattr(model, name) for name in VECTORS}
    digest = np.array(model_folder.open_array(source, DIGEST))
    manifest = {**job.about, **figures, "stretch": model.stretch}
    model_folder.save(job.folder, manifest, {**arrays, DIGEST: digest}, texts=texts)
    model_folder.remove(source)
    return figures


@lru_cache(maxsize=2)
def read(folder: str) -> Trained:
    """Loaded once per Python process.

    Raises: DataError when the folder holds no complete model.
    """
    stretch = model_folder.read_manifest(folder)["stretch"]
    vectors = {name: np.asarray(model_folder.open_array(folder, name)) for name in VECTORS}
    names = {name: pa.array(json.loads(model_folder.read_text(folder, f"{name}.json")), pa.string()) for name in NAMES}
    model = graph.Model(**vectors, stretch=stretch)
    return Trained(model, names, np.asarray(model_folder.open_array(folder, DIGEST)))


def vectors_of(trained: Trained, item: pa.Array, digest: Array, facts: Mapping[str, Any]) -> Array:
    """float32 (n, D): an item's trained vector if its facts are those of the training, else the vector that its facts
    give; zeros without any. `facts`: `owner`, the row that a fact belongs to, with its `relation` and `entity`."""
    relation, entity = (numbers_of(facts[name], trained.names[name]) for name in NAMES[1:])
    vectors = graph.from_entities(trained.model, facts["owner"], relation, entity, len(item))
    at = numbers_of(item, trained.names["item"])
    same = (at >= 0) & (trained.digest_I[at] == digest)
    vectors[same] = trained.model.items_ID[at[same]]
    return vectors


def numbers_of(values: pa.Array, names: pa.Array) -> Array:
    """int64 (n,): the place of each value among the names, -1 for none."""
    return np.asarray(pc.fill_null(pc.index_in(values.cast(pa.string()), value_set=names), -1), np.int64)
