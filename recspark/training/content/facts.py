"""Train item vectors on the facts of a folder, and read them back: what the one process of a launch runs. No Spark.

Memory: 12 bytes a fact beside their names, and the vectors.
"""

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recspark import model_folder
from recspark.arrays import Array
from recspark.encoders import graph
from recspark.errors import RecsparkError

log = logging.getLogger("recspark.item_facts")

NAMES = ("item", "relation", "entity")
VECTORS = ("items_ID", "relations_RD", "entities_ED", "centres_RD")
FACTS, DIGEST = "facts", "digest"


@dataclass(frozen=True)
class Trained:
    """`names`: of items, relations and entities in the order of the vectors; `digest_I`: hash of an item's facts."""

    model: graph.Model
    names: dict[str, pa.Array]
    digest_I: Array


def run(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Train `folder` on its facts. Returns the figures on held-out facts, or {"error": message}."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        return fit(tree["folder"], graph.Settings(**tree["settings"]), tree["seed"], tree["about"])
    except RecsparkError as error:
        return {"error": str(error)}


def write_facts(folder: str, facts: Mapping[str, pa.DictionaryArray], digest_I: Array) -> None:
    """What a training reads: a fact's item, relation and entity; `digest_I` in the order of the items' dictionary."""
    arrays = {name: facts[name].indices.to_numpy().astype(np.int32) for name in NAMES}
    names = {f"{name}.json": json.dumps(facts[name].dictionary.to_pylist()) for name in NAMES}
    model_folder.save(f"{folder}/{FACTS}", {}, {**arrays, DIGEST: digest_I}, texts=names)


def fit(folder: str, settings: graph.Settings, seed: int, about: Mapping[str, Any]) -> dict[str, float]:
    """Train on what `write_facts` left, save the model with `about` in its manifest, and remove the facts."""
    source = f"{folder}/{FACTS}"
    texts = {f"{name}.json": model_folder.read_text(source, f"{name}.json") for name in NAMES}
    numbers = [np.array(model_folder.open_array(source, name), np.int64) for name in NAMES]
    sizes = [len(json.loads(text)) for text in texts.values()]
    model, figures = graph.fit(graph.Facts(*numbers, *sizes), settings, seed, log.info)
    arrays = {name: getattr(model, name) for name in VECTORS}
    digest = np.array(model_folder.open_array(source, DIGEST))
    manifest = {**about, **figures, "stretch": model.stretch}
    model_folder.save(folder, manifest, {**arrays, DIGEST: digest}, texts=texts)
    model_folder.remove(source)
    return figures


@lru_cache(maxsize=2)
def read(folder: str) -> Trained:
    """One per Python process. Raises DataError when the folder holds no whole model."""
    stretch = model_folder.read_manifest(folder)["stretch"]
    vectors = {name: np.asarray(model_folder.open_array(folder, name)) for name in VECTORS}
    names = {name: pa.array(json.loads(model_folder.read_text(folder, f"{name}.json")), pa.string()) for name in NAMES}
    model = graph.Model(**vectors, stretch=stretch)
    return Trained(model, names, np.asarray(model_folder.open_array(folder, DIGEST)))


def vectors_of(trained: Trained, item: pa.Array, digest: Array, facts: Mapping[str, Any]) -> Array:
    """float32 (n, D): the trained vector of an item whose facts are those of the training, else where its facts put it;
    zeros without any. `facts`: `owner`, the row of a fact, with its `relation` and `entity`."""
    relation, entity = (numbers_of(facts[name], trained.names[name]) for name in NAMES[1:])
    vectors = graph.from_entities(trained.model, facts["owner"], relation, entity, len(item))
    at = numbers_of(item, trained.names["item"])
    same = (at >= 0) & (trained.digest_I[at] == digest)
    vectors[same] = trained.model.items_ID[at[same]]
    return vectors


def numbers_of(values: pa.Array, names: pa.Array) -> Array:
    """int64 (n,): each one's place among the names, -1 for none."""
    return np.asarray(pc.fill_null(pc.index_in(values.cast(pa.string()), value_set=names), -1), np.int64)
