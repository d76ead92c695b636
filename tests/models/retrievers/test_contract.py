"""The contract of every retriever: a new one joins `ALL` and inherits these tests."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.research import scenario_linear, scenario_popular, transitions
from recspark import model_folder
from recspark.config.retrievers import ContentMap, ContentTowers, CoOccurrence, Linear, MatrixFactorization, Sequence
from recspark.histories import Histories
from recspark.models.retrievers import (
    affinity,
    co_occurrence,
    content_map,
    content_towers,
    matrix_factorization,
    sequence,
)
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.topk import top_k

NO_DECAY = float("inf")  # half-life
PLAIN, RECENT = (Linear(l2=5.0, half_life_days=days) for days in (NO_DECAY, 5.0))
SMALL_SEQUENCE = Sequence(dim=16, layers=1, negatives=8, learning_rate=0.01, max_epochs=8)


@dataclass(frozen=True)
class Case:
    """A module and settings small enough for a test; `options`: further arguments of its `fit`."""

    module: ModuleType
    settings: Any
    options: dict[str, bool] = field(default_factory=dict)
    strongest: bool = False

    def fit(self, histories: Histories, catalogue: Catalogue) -> Any:
        model = self.module.fit(histories, catalogue, self.settings, 0, **self.options)
        return replace(model, strongest=True) if self.strongest else model


Fitted = tuple[Case, Any]  # case, model
OWN = {"own": True}
ALL = {
    "linear-pooled": Case(scenario_linear, scenario_linear.Settings(PLAIN)),
    "linear-own": Case(scenario_linear, scenario_linear.Settings(PLAIN, own_l2=5.0, own_share=1.0)),
    "linear": Case(scenario_linear, scenario_linear.Settings(RECENT, own_l2=5.0, own_share=0.5)),
    "linear-strongest": Case(
        scenario_linear, scenario_linear.Settings(PLAIN, own_l2=5.0, own_share=0.5), strongest=True
    ),
    "co_occurrence": Case(co_occurrence, CoOccurrence(half_life_days=NO_DECAY)),
    "co_occurrence-strongest": Case(co_occurrence, CoOccurrence(half_life_days=NO_DECAY), OWN, strongest=True),
    "co_occurrence-own": Case(
        co_occurrence, CoOccurrence(pair_half_life_days=5.0, half_life_days=5.0, neighbours=7), OWN
    ),
    "matrix_factorization": Case(matrix_factorization, MatrixFactorization(num_factors=6)),
    "transitions": Case(transitions, transitions.Settings(rank=4)),
    "content": Case(content_towers, ContentTowers(dim=8, negatives=16, max_epochs=2)),
    "content_map": Case(content_map, ContentMap(num_factors=4)),
    "sequence": Case(sequence, SMALL_SEQUENCE),
    "sequence-adapter": Case(sequence, SMALL_SEQUENCE.model_copy(update={"mode": "adapter"})),
    "popular": Case(scenario_popular, scenario_popular.Settings(30.0, 10.0)),
}

NUM_ITEMS, NEW_ITEM, SMALL, USERS = 24, 23, 2, 160
DIMENSIONS = 8


def world(seed: int = 0) -> tuple[Histories, Catalogue]:
    """160 users with 1 to 12 events among 24 items in two tastes (even and odd items); the last 20 users are in
    scenario 2, which no other user is in; user 0 has one event, item 22 has one event, item 23 none."""
    rng = np.random.default_rng(seed)
    sizes = np.concatenate(([1], rng.integers(2, 13, USERS - 1)))
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    taste = np.repeat(np.arange(USERS) % 2, sizes)
    item_idx = 2 * rng.integers(0, 11, offsets[-1]) + taste
    item_idx[5] = 22
    scenario = np.repeat(np.where(np.arange(USERS) < USERS - 20, np.arange(USERS) % 2, SMALL), sizes)
    time = np.sort(rng.uniform(1000, 1100, offsets[-1]))
    owner = np.repeat(np.arange(USERS), sizes)
    time = time[np.lexsort((time, owner))]
    ones = np.ones(offsets[-1], dtype=np.float32)
    content = rng.normal(size=(NUM_ITEMS, DIMENSIONS)).astype(np.float32)
    content[:, 0] += np.where(np.arange(NUM_ITEMS) % 2, 3.0, -3.0)  # content tells the tastes apart
    histories = Histories(offsets, item_idx.astype(np.int32), scenario.astype(np.int32), time, ones, ones, ones)
    return histories, Catalogue(NUM_ITEMS, 3, content)


def users_of(h: Histories, users: np.ndarray) -> Histories:
    """The histories of some users, in that order."""
    rows = np.concatenate([np.arange(h.offsets[u], h.offsets[u + 1]) for u in users] or [np.zeros(0, dtype=int)])
    offsets = np.concatenate(([0], np.cumsum(np.diff(h.offsets)[users])))
    arrays = (h.item_idx, h.scenario_idx, h.time, h.weight, h.value, h.price)
    return Histories(offsets, *(array[rows] for array in arrays))


def query_of(h: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Scenario and time of each user's query: the scenario of the user's first event, ten days after the last event."""
    return h.scenario_idx[h.offsets[:-1]], np.full(len(h.offsets) - 1, 1110.0)


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence, "BATCH_USERS", 32)
        yield


@pytest.fixture(scope="module", params=ALL.values(), ids=ALL)
def fitted(request: pytest.FixtureRequest, small_batches: None) -> Fitted:
    histories, catalogue = world()
    return request.param, request.param.fit(histories, catalogue)


def test_scores_have_shape_and_type(fitted: Fitted) -> None:
    case, model = fitted
    module = case.module
    histories, _ = world()
    found = module.scores(model, histories, *query_of(histories))
    assert found.shape == (USERS, NUM_ITEMS) and found.dtype == np.float32
    assert np.isfinite(found[:, :22]).all()


def test_saved_is_fresh(fitted: Fitted, tmp_path: Path) -> None:
    case, model = fitted
    module = case.module
    manifest, arrays = module.to_arrays(model)
    model_folder.save(str(tmp_path / "model"), manifest, arrays)
    stored = {name: np.load(tmp_path / "model" / f"{name}.npy") for name in arrays}
    again = module.from_arrays(model_folder.read_manifest(str(tmp_path / "model")), stored)
    histories, _ = world()
    np.testing.assert_array_equal(
        module.scores(again, histories, *query_of(histories)), module.scores(model, histories, *query_of(histories))
    )


def test_same_seed_same_model(fitted: Fitted) -> None:
    case, model = fitted
    histories, catalogue = world()
    expected = case.module.scores(model, histories, *query_of(histories))
    found = case.module.scores(case.fit(histories, catalogue), histories, *query_of(histories))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_any_block_gives_the_same_scores(fitted: Fitted) -> None:
    """One user alone, blocks of 7 in reversed order, and all at once."""
    case, model = fitted
    module = case.module
    histories, _ = world()
    whole = module.scores(model, histories, *query_of(histories))
    for size in (1, 7):
        order = np.arange(USERS)[::-1]
        for low in range(0, USERS, size):
            users = order[low : low + size]
            block = users_of(histories, users)
            np.testing.assert_allclose(module.scores(model, block, *query_of(block)), whole[users], atol=1e-5)


def test_no_user_gets_a_seen_item(fitted: Fitted) -> None:
    case, model = fitted
    module = case.module
    histories, _ = world()
    seen = affinity.seen(histories.offsets, histories.item_idx, NUM_ITEMS)
    idx, _ = top_k(module.scores(model, histories, *query_of(histories)), 5, seen)
    owner, place = np.nonzero(idx >= 0)
    assert len(owner) and not np.asarray(seen[owner, idx[owner, place]]).any()


def test_users_without_history_and_items_without_events_are_fine(fitted: Fitted) -> None:
    """A user without events, one with one event, and one with an item (23) that has no event in training."""
    case, model = fitted
    module = case.module
    one = np.ones(2, dtype=np.float32)
    histories = Histories(
        np.array([0, 0, 1, 2]), np.array([3, NEW_ITEM], dtype=np.int32), np.zeros(2, dtype=np.int32),
        np.array([1105.0, 1105.0]), one, one, one,
    )  # fmt: skip
    found = module.scores(model, histories, np.array([0, 1, 2]), np.full(3, 1110.0))
    assert found.shape == (3, NUM_ITEMS)
    assert not np.isinf(found).any()


def test_unknown_times_are_fine(fitted: Fitted) -> None:
    case, _ = fitted
    histories, catalogue = world()
    histories = replace(histories, time=np.full(len(histories.time), np.nan))
    model = case.fit(histories, catalogue)
    scenario, _ = query_of(histories)
    assert np.isfinite(case.module.scores(model, histories, scenario, np.full(USERS, np.nan))[:, :22]).all()


def test_a_scenario_of_twenty_users_learns(fitted: Fitted) -> None:
    """Planted: users like even items or odd ones. Scenario 2, too, has the right half on top. (Popularity knows no
    tastes: it must rank items by their number of events in the scenario.)"""
    case, model = fitted
    module = case.module
    histories, _ = world()
    block = users_of(histories, np.arange(USERS - 20, USERS))
    found = module.scores(model, block, *query_of(block))[:, :22]
    if module is scenario_popular:
        counts = np.bincount(block.item_idx, minlength=NUM_ITEMS)[:22]
        assert np.corrcoef(found[0], counts)[0, 1] > 0.5
        return
    taste = np.arange(USERS - 20, USERS) % 2
    right = found.reshape(20, 11, 2).mean(axis=1)
    assert (right[np.arange(20), taste] > right[np.arange(20), 1 - taste]).mean() > 0.9
