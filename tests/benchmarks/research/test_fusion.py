"""The trained combination of scores, on planted lists."""

import numpy as np
import pytest

from benchmarks.research import fusion, scenario_popular
from benchmarks.research.event_time_features import Lists
from recspark.config.rankers import Gbdt
from recspark.errors import DataError
from recspark.histories import Histories
from recspark.models.retrievers.catalogue import Catalogue

SETTINGS = Gbdt(max_rounds=60, learning_rate=0.1, num_leaves=7)


def histories() -> Histories:
    """User 0: items 0, 1, 2; user 1: item 3; user 2: nothing."""
    ones = np.ones(4)
    return Histories(np.array([0, 3, 4, 4]), np.array([0, 1, 2, 3]), np.zeros(4, int), np.arange(4.0), ones, ones, ones)


def test_take_leaves_out_the_newest_events() -> None:
    """Users in the order of the query; a user with one event keeps it."""
    found = fusion.take(histories(), np.array([1, 0, 2, 0]), drop=1)
    assert found.offsets.tolist() == [0, 1, 3, 3, 5]
    assert found.item_idx.tolist() == [3, 0, 1, 0, 1]
    assert fusion.take(histories(), np.array([0])).item_idx.tolist() == [0, 1, 2]


def lists_of(num_lists: int, size: int = 10) -> Lists:
    empty = Histories(np.zeros(num_lists + 1, int), *(np.zeros(0, int),) * 2, *(np.zeros(0),) * 4)
    offsets = size * np.arange(num_lists + 1)
    return Lists(empty, np.zeros(num_lists, int), np.full(num_lists, 5.0), offsets, np.tile(np.arange(size), num_lists))


def test_columns_hold_the_score_of_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Popularity of item i is i of 0 + 1 + 2 + 3 events; the size of blocks changes nothing."""
    item = np.array([1, 2, 2, 3, 3, 3])
    ones = np.ones(6)
    trained = Histories(np.array([0, 6]), item, np.zeros(6, int), ones, ones, ones, ones)
    model = scenario_popular.fit(trained, Catalogue(4, 1), scenario_popular.Settings())
    lists = lists_of(5, size=4)
    found = fusion.columns({"popular": fusion.Retriever(scenario_popular, model)}, lists)
    np.testing.assert_allclose(found[:, 0], np.tile([0, 1 / 6, 2 / 6, 3 / 6], 5), rtol=1e-6)
    monkeypatch.setattr(fusion, "LISTS_A_BLOCK", 2)
    np.testing.assert_array_equal(fusion.columns({"p": fusion.Retriever(scenario_popular, model)}, lists), found)


def planted(num_lists: int, seed: int) -> tuple[np.ndarray, Lists, np.ndarray]:
    """Two retrievers with half of the truth each, and noise: the positive row has the largest sum of the two."""
    lists = lists_of(num_lists)
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(10 * num_lists, 3)).astype(np.float32)
    truth = features[:, :2].sum(axis=1).reshape(num_lists, 10)
    return features, lists, (truth == truth.max(axis=1, keepdims=True)).ravel().astype(float)


def test_finds_the_planted_sum() -> None:
    """On new lists it is better than either half alone, and as good as the held-out NDCG."""
    features, lists, labels = planted(600, 0)
    model = fusion.fit(features, ["a", "b", "noise"], lists, labels, np.arange(600), [SETTINGS], 0, num_threads=1)
    features, lists, labels = planted(300, 1)
    found = fusion.mean_ndcg(fusion.predict(model, features, 1), labels, lists.offsets)
    halves = [fusion.mean_ndcg(features[:, half], labels, lists.offsets) for half in (0, 1)]
    assert found > 0.9 > max(halves)
    assert abs(found - model.held_out_ndcg) < 0.03


def test_same_seed_same_scores() -> None:
    features, lists, labels = planted(100, 0)
    fitted = [
        fusion.fit(features, "abc", lists, labels, np.arange(100), [SETTINGS], 3, num_threads=1) for _ in range(2)
    ]
    first, second = (fusion.predict(model, features, 1) for model in fitted)
    np.testing.assert_array_equal(first, second)


def test_takes_the_better_settings() -> None:
    """One tree of two leaves cannot learn a sum of two columns; sixty trees of seven leaves can."""
    features, lists, labels = planted(300, 0)
    stump = SETTINGS.model_copy(update={"max_rounds": 1, "num_leaves": 2})
    able = SETTINGS.model_copy(update={"objective": "lambdarank"})
    for order in ([stump, able], [able, stump]):
        model = fusion.fit(features, "abc", lists, labels, np.arange(300), order, 0, num_threads=1)
        assert model.settings == able
        assert len(model.folds) == 3 and model.held_out_ndcg > 0.85


def test_lists_of_one_user_are_in_one_fold() -> None:
    """All lists are of one user, so there is one fold only."""
    features, lists, labels = planted(50, 0)
    model = fusion.fit(features, "abc", lists, labels, np.zeros(50, int), [SETTINGS], 0, num_threads=1)
    assert len(model.folds) == 1


def test_no_positive_is_refused() -> None:
    features, lists, labels = planted(20, 0)
    with pytest.raises(DataError, match="no positive"):
        fusion.fit(features, "abc", lists, 0 * labels, np.arange(20), [SETTINGS], 0)


def test_ndcg_by_hand() -> None:
    """Positive second of two: 1 / log2(3); a tie keeps the rows' order; no positive is nan."""
    scores, labels = np.array([2.0, 1.0, 5.0, 5.0, 1.0, 0.0]), np.array([0, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(
        fusion.ndcg(scores, labels, np.array([0, 2, 4, 6])), [1 / np.log2(3), 1.0, np.nan], rtol=1e-12
    )
