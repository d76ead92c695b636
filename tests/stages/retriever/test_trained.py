"""Retrievers that are models of their own in the bundle: trained through Spark, and the candidates of all of them."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.retrievers import RETRIEVERS, Retriever
from recspark.config.schema import Config
from recspark.errors import ConfigError, DataError
from recspark.features import FEATURES, features_of
from recspark.histories import Histories, from_arrow, take
from recspark.models.retrievers import co_occurrence, content_map, content_towers, matrix_factorization, sequence
from recspark.models.retrievers.catalogue import Catalogue
from recspark.stages.candidates import stage as candidates
from recspark.stages.ranker.scorer import Scorer
from recspark.stages.retriever import stage as retriever
from recspark.stages.retriever import trained as trained_retrievers
from recspark.stages.retriever.bundle import open_bundle
from recspark.tables import histories as histories_table
from recspark.tables.candidates import EXPLAINING_ITEM, TABLE
from recspark.tables.index import ITEM_INDEX, USER_INDEX
from recspark.warehouse import artifacts
from tests import world

SETTINGS = {
    "linear": None,
    "co_occurrence": {"pair_half_life_days": 10.0, "shrinkage": 0.0, "neighbours": 5},
    "matrix_factorization": {"num_factors": 2},
    "sequence": {
        "dim": 8, "layers": 1, "heads": 1, "length": 10, "negatives": 8, "learning_rate": 0.02, "max_epochs": 4
    },
    "content_towers": {"dim": 4, "negatives": 8, "max_epochs": 1},
    "content_map": {"num_factors": 2},
}  # fmt: skip
MODELS = ("co_occurrence", "matrix_factorization", "sequence", "content_towers", "content_map")


@pytest.fixture(scope="module")
def config(planted_night) -> Config:
    return Config.model_validate({**planted_night.config.model_dump(), "retriever": SETTINGS})


@pytest.fixture(scope="module")
def bundle(planted_night, config):
    retriever.refresh(planted_night.store, config, world.AS_OF)
    return open_bundle(artifacts.require(planted_night.store, config, "retriever", world.AS_OF, "retriever"))


@pytest.fixture(scope="module")
def histories(planted_night, config):
    groups = histories_table.groups_in(planted_night.path)
    return histories_table.read(planted_night.store, config, world.AS_OF, groups).persist()


@pytest.fixture(scope="module")
def flat(histories) -> Histories:
    """The same histories in order of user, as flat arrays."""
    (batch,) = histories.coalesce(1).sortWithinPartitions(c.USER_IDX).toArrow().combine_chunks().to_batches()
    return from_arrow(batch)


@pytest.fixture(scope="module")
def rows(planted_night, config, bundle, histories):
    """(user_id, scenario) -> item_id -> its candidate."""
    path = artifacts.require(planted_night.store, config, "retriever", world.AS_OF, "retriever")
    built = candidates.build(histories, path, candidates.settings_of(config, world.AS_OF))
    return by_list(planted_night.store, built)


def by_list(store, frame) -> dict[tuple[str, str], dict[str, dict]]:
    named = frame.join(store.read(ITEM_INDEX), "item_idx").join(store.read(USER_INDEX), "user_idx")
    found: dict[tuple[str, str], dict[str, dict]] = {}
    for row in named.collect():
        found.setdefault((row.user_id, row.scenario), {})[row.item_id] = row.asDict()
    return found


def test_pairs_summed_by_spark_are_those_of_the_arrays(planted_night, bundle, histories, flat) -> None:
    """Whatever the partitioning, to the last bit."""
    num_items = len(bundle.known)
    settings = night_settings("co_occurrence")
    expected = co_occurrence.matrix(co_occurrence.fit(flat, Catalogue(num_items, 3), settings)).toarray()
    assert expected.any()
    counts = np.bincount(flat.item_idx[flat.weight > 0], minlength=num_items)
    for parts in (1, 5):
        model = trained_retrievers.count_pairs(
            histories.repartition(parts, F.rand(1)), num_items, counts, settings, f"{planted_night.path}-{parts}"
        )
        np.testing.assert_array_equal(co_occurrence.matrix(model).toarray(), expected)
    stored = bundle.trained["co_occurrence"].model
    np.testing.assert_array_equal(co_occurrence.matrix(stored).toarray(), expected)


def night_settings(name: str) -> Any:
    return getattr(Retriever.model_validate(SETTINGS), name)


@pytest.mark.parametrize(
    "module",
    [matrix_factorization, content_towers, content_map],
    ids=["matrix_factorization", "content_towers", "content_map"],
)
def test_trained_by_spark_or_on_arrays(module, planted_night, bundle, flat) -> None:
    """TorchDistributor on the night's shards trains the same model as `fit` on flat arrays."""
    name = module.__name__.rsplit(".", 1)[-1]
    catalogue = Catalogue(len(bundle.known), 3, bundle.content)
    model = module.fit(flat, catalogue, night_settings(name), planted_night.config.seed)
    scenario = np.zeros(len(flat.offsets) - 1, dtype=int)
    time = np.full(len(scenario), float(bundle.as_of_day))
    expected = module.scores(model, flat, scenario, time)
    trained = bundle.trained[name]
    found = trained.module.scores(trained.model, flat, scenario, time)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_candidates_have_the_scores_of_the_models(planted_night, bundle, flat, rows) -> None:
    """Every retriever's score of every row is the one that its module gives on arrays, whoever found the item."""
    idx = {row.item_id: row.item_idx for row in planted_night.store.read(ITEM_INDEX).collect()}
    users = sorted({user for user, _ in rows})
    number = {row.user_id: row.user_idx for row in planted_night.store.read(USER_INDEX).collect()}
    assert [number[user] for user in users] == list(range(len(users)))  # so `flat` has them in this order
    for scenario in (world.RICH, world.POOR):
        own = [at for at, user in enumerate(users) if (user, scenario) in rows]
        query = np.full(len(own), bundle.scenarios[scenario]), np.full(len(own), float(bundle.as_of_day))
        for name in MODELS:
            trained = bundle.trained[name]
            scores = trained.module.scores(trained.model, take(flat, np.array(own)), *query)
            for row, at in enumerate(own):
                for item, candidate in rows[users[at], scenario].items():
                    found = candidate[f"{name}_score"]
                    assert found == pytest.approx(scores[row, idx[item]], abs=1e-5)
    everything = [row for found in rows.values() for row in found.values()]
    assert all(np.isnan(row["linear_score"]) and np.isnan(row["linear_rank"]) for row in everything)


def test_each_finds_the_withheld_item(planted_night, rows) -> None:
    """Co-occurrence and factors: it is the only item of the user's taste that the user has no event with. Users of the
    poor scenario get items of their taste, although no user in it has events with them."""
    planted = planted_night.planted
    for user, missing in planted.withheld.items():
        row = rows[user, world.RICH][missing]
        assert row["co_occurrence_rank"] == 1 and row["source"] == "co_occurrence"
        assert row["matrix_factorization_rank"] == 1
        assert row[EXPLAINING_ITEM] >= 0
    for user, taste in planted.tastes.items():
        if user.startswith("poor"):
            found = rows[user, world.POOR].values()
            (best,) = [row for row in found if row["co_occurrence_rank"] == 1]
            assert planted.items[best["item_id"]][0] == taste
    new = [rows[user, world.RICH].get(planted.unsold[planted.tastes[user]]) for user in planted.withheld]
    for name in ("content_towers", "content_map"):
        assert all(row is not None and row[f"{name}_rank"] > 0 for row in new), name  # without events


def test_sequence_scores_every_candidate(planted_night, rows) -> None:
    ranks = [row["sequence_rank"] for found in rows.values() for row in found.values()]
    assert np.isfinite(ranks).any()
    assert all(np.isfinite(row["sequence_score"]) for found in rows.values() for row in found.values())


def test_partitions_and_blocks_change_nothing(planted_night, config, histories, rows) -> None:
    path = artifacts.require(planted_night.store, config, "retriever", world.AS_OF, "retriever")
    settings = candidates.settings_of(
        config.model_copy(update={"candidates": config.candidates.model_copy(update={"block_users": 3})}), world.AS_OF
    )
    run = partial(candidates._blocks, bundle_path=path, settings=settings)
    other = by_list(planted_night.store, histories.repartition(3, F.rand(2)).mapInArrow(run, TABLE.ddl))
    assert {key: set(found) for key, found in other.items()} == {key: set(found) for key, found in rows.items()}
    for key, found in rows.items():
        for item, row in found.items():
            for name in FEATURES:
                assert other[key][item][name] == pytest.approx(row[name], rel=1e-5, abs=1e-5, nan_ok=True), name


def test_what_is_trained_already_stays(planted_night, config, bundle) -> None:
    path = artifacts.require(planted_night.store, config, "retriever", world.AS_OF, "retriever")
    assert retriever.refresh(planted_night.store, config, world.AS_OF).skipped
    model_folder.remove(f"{path}/content_towers")  # as if the night was killed before it was trained
    with pytest.raises(DataError, match="has no readable"):
        trained_retrievers.read(path, "content_towers")
    retriever.refresh(planted_night.store, config, world.AS_OF)
    trained_retrievers.read(path, "content_towers")


def test_the_ranker_sees_working_retrievers_only(config) -> None:
    names = features_of(config.retriever.names)
    assert config.retriever.names == tuple(name for name in RETRIEVERS if name != "linear")
    of_linear = ("score", "share", "rank", "recent", "lasting", "strongest")
    assert set(FEATURES) - set(names) == {f"linear_{kind}" for kind in of_linear}
    assert Scorer(None, None, "", "", 0, config.retriever.names).modes == config.retriever.names


def test_an_unknown_target(planted_night, config) -> None:
    wrong = {**SETTINGS, "sequence": {"mode": "single", "target": "ritch"}}
    other = Config.model_validate({**planted_night.config.model_dump(), "retriever": wrong})
    with pytest.raises(ConfigError, match=r"retriever.sequence.target: .* did you mean 'rich'"):
        retriever.refresh(planted_night.store, other, world.AS_OF)


def test_only_lists_of_the_target_are_scored(planted_night) -> None:
    """`single` on the rich scenario: its lists have scores, the poor one's have none."""
    alone = {"sequence": {**SETTINGS["sequence"], "mode": "single", "target": world.RICH}}
    config = Config.model_validate({**planted_night.config.model_dump(), "retriever": alone})
    retriever.refresh(planted_night.store, config, world.AS_OF)
    path = artifacts.require(planted_night.store, config, "retriever", world.AS_OF, "retriever")
    frame = histories_table.read(planted_night.store, config, world.AS_OF, histories_table.groups_in(path))
    built = candidates.build(frame, path, candidates.settings_of(config, world.AS_OF))
    scored = {(row.scenario, bool(np.isfinite(row.sequence_score))) for row in built.collect()}
    assert scored == {(world.RICH, True), (world.POOR, False)}
    assert isinstance(open_bundle(path).trained["sequence"].model, sequence.Model)
