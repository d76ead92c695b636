"""Vectors from facts in Spark: trained once, new items placed without training, beside the texts' in a bundle."""

from datetime import timedelta

import numpy as np
import pytest
from pyspark.sql import functions as F

from recspark import model_folder
from recspark.config.schema import Config
from recspark.encoders.vectors import vectors_to_array
from recspark.encoders.weights import versions
from recspark.errors import DataError
from recspark.stages import item_facts as item_facts_stage
from recspark.stages.item_embeddings import facts as fact_embeddings
from recspark.stages.item_embeddings import stage as job
from recspark.stages.item_embeddings.encoders import encoders_of
from recspark.stages.retriever import stage as retriever
from recspark.stages.retriever.bundle import open_bundle
from recspark.tables import index, item_facts, items
from recspark.tables import item_embeddings as table
from recspark.training.content import facts as fact_job
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from tests import world
from tests.encoders import tiny

RELATIONS = {"taste": "attributes['taste']", "word": "split(text, ' ')"}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    folder = tmp_path_factory.mktemp("facts")
    return Config.model_validate(
        {
            "warehouse": str(folder / "warehouse"),
            "source": {"interactions": world.SOURCE},
            "item_embeddings": {"encoder": str(tiny.build("bert", folder / "tiny"))},
            "item_facts": {"relations": RELATIONS, "embedding": {"dim": 8, "max_epochs": 10}},
            "retriever": {"linear": {"l2": 5.0}},
        }
    )


@pytest.fixture(scope="module")
def store(spark, config) -> Store:
    """The planted world, with the taste of each item as a fact; one item has no fact."""
    made = Store(spark, config, "run")
    planted = world.tastes()
    world.write(planted, made, "none")  # the encoders of the configuration have done nothing yet
    rows = [(item, text, {"taste": f"taste-{taste}"}) for item, (taste, text) in sorted(planted.items.items())]
    write_items(made, [*rows, ("mute", None, {})])
    return made


def write_items(store, rows) -> None:
    first = world.AS_OF - timedelta(days=200)
    listed = [(item, text, attributes, None, f"hash of {text}", first, None) for item, text, attributes in rows]
    store.replace(items.TABLE, store.spark.createDataFrame(listed, items.TABLE.schema))
    numbered = [(item, n) for n, item in enumerate(sorted(row[0] for row in rows))]
    store.replace(index.ITEM_INDEX, store.spark.createDataFrame(numbered, index.ITEM_INDEX.schema))


def run_stages(store, config):
    item_facts_stage.refresh(store, config, world.AS_OF)
    return job.refresh(store, config, world.AS_OF)


def found(store, version) -> dict[str, np.ndarray | None]:
    rows = store.read(table.TABLE).where(F.col("encoder") == version).collect()
    return {row.item_id: row.embedding and vectors_to_array([row.embedding])[0] for row in rows}


def versions_of(store, config) -> tuple[str, ...]:
    return tuple(one.version for one in encoders_of(store, config, world.AS_OF))


def cosine(a, b) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def add(store, *rows) -> None:
    old = [(row.item_id, row.text, row.attributes) for row in store.read(items.TABLE).collect()]
    write_items(store, [*(row for row in old if row[0] not in {new[0] for new in rows}), *rows])


def test_from_the_first_night_to_new_items(store, config) -> None:
    with pytest.raises(DataError, match=r"item_facts.embedding: no model is trained yet"):
        versions_of(store, config)
    assert "trained, MRR of held-out facts" in run_stages(store, config).note
    text, version = versions_of(store, config)
    assert (text,) == versions(config.item_embeddings.all) and version.startswith("facts@")
    first = found(store, version)
    assert first["mute"] is None and len(first) == 19
    trained = fact_job.read(f"{store.models('fact_model')}/{version.removeprefix('facts@')}")
    place = trained.names["item"].to_pylist().index("item-0-3")
    np.testing.assert_array_equal(first["item-0-3"], trained.model.items_ID[place])
    again = run_stages(store, config)
    assert again.skipped and "trained, MRR" not in again.note

    # a new item, and one with another taste but the same text: both get vectors from their facts without a training
    add(
        store,
        ("late", "garden lantern late", {"taste": "taste-0"}),
        ("item-1-2", "kitchen mug 2", {"taste": "taste-0"}),
    )
    summary = run_stages(store, config)
    assert "trained, MRR" not in summary.note and versions_of(store, config) == (text, version)
    later = found(store, version)
    assert summary.rows_out == 3  # `late` by its text and by its facts, item-1-2 by its facts alone
    changed = {item for item in later if item not in first or not np.array_equal(later[item], first[item])}
    assert changed == {"late", "item-1-2"}
    own, other = (np.mean([cosine(later["late"], first[f"item-{t}-{n}"]) for n in range(8)]) for t in (0, 1))
    assert own > 0.5 and other < 0
    assert cosine(later["item-1-2"], first["item-1-3"]) < cosine(first["item-1-2"], first["item-1-3"])

    # beside the text's vectors in the retrievers' bundle
    retriever.refresh(store, config, world.AS_OF)
    bundle = artifacts.require(store, config, "retriever", world.AS_OF, "retriever")
    assert model_folder.read_manifest(bundle)["content_parts"] == [16, 8]
    assert open_bundle(bundle).content.shape[1] == 24

    # a tenth more facts: trained again, under another name, and every item has its vector again
    add(store, *((f"more-{n}", f"kitchen mug {n}", {"taste": "taste-1"}) for n in range(4)))
    assert "trained, MRR" in run_stages(store, config).note
    _, grown = versions_of(store, config)
    assert grown != version and set(found(store, grown)) == {*later, *(f"more-{n}" for n in range(4))}
    assert not model_folder.exists(f"{store.models('fact_model')}/{version.removeprefix('facts@')}")


def test_training_does_not_depend_on_partitions(store, config) -> None:
    facts = store.read(item_facts.TABLE)
    one, five = (fact_embeddings._numbered(facts.repartition(n)) for n in (1, 5))
    np.testing.assert_array_equal(one[1], five[1])
    assert all(one[0][name].equals(five[0][name]) for name in fact_job.NAMES)
    triples = set(zip(*(one[0][name].to_pylist() for name in fact_job.NAMES), strict=True))
    assert triples == {tuple(row) for row in facts.collect()}


def test_without_any_fact_there_is_nothing_to_train(store, config) -> None:
    empty = config.model_copy(
        update={"item_facts": config.item_facts.model_copy(update={"relations": {"no": "attributes['nothing']"}})}
    )
    item_facts_stage.refresh(store, empty, world.AS_OF)
    with pytest.raises(DataError, match="no model is trained yet"):  # the only model is of another configuration
        versions_of(store, empty)
    with pytest.raises(DataError, match="item_facts is empty; fix"):
        job.refresh(store, empty, world.AS_OF)
