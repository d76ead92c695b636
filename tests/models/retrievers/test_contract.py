"""What every retriever promises, over one list: a new one joins `ALL` and inherits these tests."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmarks.research import scenario_popular
from recspark import model_folder
from recspark.histories import Histories
from recspark.models.retrievers import (
    affinity,
    co_occurrence,
    content_map,
    content_towers,
    matrix_factorization,
    scenario_linear,
    sequence,
    transitions,
)
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.topk import top_k

Fitted = tuple[ModuleType, Any, Any]  # module, settings, model

SMALL_SEQUENCE = sequence.Settings(dim=16, layers=1, negatives=8, learning_rate=0.01, max_epochs=8, batch_users=32)

# (module, settings small enough for a test)
ALL = [
    pytest.param((scenario_linear, scenario_linear.Settings(l2=5.0)), id="linear-pooled"),
    pytest.param((scenario_linear, scenario_linear.Settings(own_l2=5.0, own_share=1.0)), id="linear-own"),
    pytest.param((scenario_linear, scenario_linear.Settings(5.0, 5.0, 0.5, half_life_days=5.0)), id="linear"),
    pytest.param((scenario_linear, scenario_linear.Settings(5.0, 5.0, 0.5, strongest=True)), id="linear-strongest"),
    pytest.param((co_occurrence, co_occurrence.Settings()), id="co_occurrence"),
    pytest.param((co_occurrence, co_occurrence.Settings(own=True, strongest=True)), id="co_occurrence-strongest"),
    pytest.param((co_occurrence, co_occurrence.Settings(5.0, 5.0, own=True, neighbours=7)), id="co_occurrence-own"),
    pytest.param((matrix_factorization, matrix_factorization.Settings(num_factors=6)), id="matrix_factorization"),
    pytest.param((transitions, transitions.Settings(rank=4)), id="transitions"),
    pytest.param((content_towers, content_towers.Settings(dim=8, negatives=16, max_epochs=2)), id="content"),
    pytest.param((content_map, content_map.Settings(num_factors=4)), id="content_map"),
    pytest.param((sequence, SMALL_SEQUENCE), id="sequence"),
    pytest.param((sequence, replace(SMALL_SEQUENCE, adapter_dim=2, balance=1.0)), id="sequence-adapter"),
    pytest.param((scenario_popular, scenario_popular.Settings(30.0, 10.0)), id="popular"),
]

NUM_ITEMS, NEW_ITEM, SMALL, USERS = 24, 23, 2, 160
DIMENSIONS = 8


def world(seed: int = 0) -> tuple[Histories, Catalogue]:
    """160 users with 1 to 12 events among 24 items in two tastes (even and odd items); the last 20 users are in
    scenario 2, which nobody else is in; user 0 has one event, item 22 has one event, item 23 none."""
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
    content[:, 0] += np.where(np.arange(NUM_ITEMS) % 2, 3.0, -3.0)  # content knows the tastes
    histories = Histories(offsets, item_idx.astype(np.int32), scenario.astype(np.int32), time, ones, ones, ones)
    return histories, Catalogue(NUM_ITEMS, 3, content)


def users_of(h: Histories, users: np.ndarray) -> Histories:
    """The histories of some users, in that order."""
    rows = np.concatenate([np.arange(h.offsets[u], h.offsets[u + 1]) for u in users] or [np.zeros(0, dtype=int)])
    offsets = np.concatenate(([0], np.cumsum(np.diff(h.offsets)[users])))
    arrays = (h.item_idx, h.scenario_idx, h.time, h.weight, h.value, h.price)
    return Histories(offsets, *(array[rows] for array in arrays))


def asked(h: Histories) -> tuple[np.ndarray, np.ndarray]:
    """Scenario and moment to ask about: the scenario of the user's first event, ten days after the last event."""
    return h.scenario_idx[h.offsets[:-1]], np.full(len(h.offsets) - 1, 1110.0)


@pytest.fixture(scope="module", params=ALL)
def fitted(request: pytest.FixtureRequest) -> Fitted:
    module, settings = request.param
    histories, catalogue = world()
    return module, settings, module.fit(histories, catalogue, settings, 0)


def test_scores_have_shape_and_type(fitted: Fitted) -> None:
    module, _, model = fitted
    histories, _ = world()
    found = module.scores(model, histories, *asked(histories))
    assert found.shape == (USERS, NUM_ITEMS) and found.dtype == np.float32
    assert np.isfinite(found[:, :22]).all()


def test_saved_is_fresh(fitted: Fitted, tmp_path: Path) -> None:
    module, _, model = fitted
    manifest, arrays = module.to_arrays(model)
    model_folder.save(str(tmp_path / "model"), manifest, arrays)
    stored = {name: np.load(tmp_path / "model" / f"{name}.npy") for name in arrays}
    again = module.from_arrays(model_folder.read_manifest(str(tmp_path / "model")), stored)
    histories, _ = world()
    np.testing.assert_array_equal(
        module.scores(again, histories, *asked(histories)), module.scores(model, histories, *asked(histories))
    )


def test_same_seed_same_model(fitted: Fitted) -> None:
    module, settings, model = fitted
    histories, catalogue = world()
    again = module.fit(histories, catalogue, settings, 0)
    expected = module.scores(model, histories, *asked(histories))
    np.testing.assert_allclose(module.scores(again, histories, *asked(histories)), expected, atol=1e-6)


def test_any_block_gives_the_same_scores(fitted: Fitted) -> None:
    """One user alone, blocks of 7 in reversed order, and all at once."""
    module, _, model = fitted
    histories, _ = world()
    whole = module.scores(model, histories, *asked(histories))
    for size in (1, 7):
        order = np.arange(USERS)[::-1]
        for low in range(0, USERS, size):
            users = order[low : low + size]
            block = users_of(histories, users)
            np.testing.assert_allclose(module.scores(model, block, *asked(block)), whole[users], atol=1e-5)


def test_nobody_gets_a_seen_item(fitted: Fitted) -> None:
    module, _, model = fitted
    histories, _ = world()
    seen = affinity.seen(histories.offsets, histories.item_idx, NUM_ITEMS)
    idx, _ = top_k(module.scores(model, histories, *asked(histories)), 5, seen)
    owner, place = np.nonzero(idx >= 0)
    assert len(owner) and not np.asarray(seen[owner, idx[owner, place]]).any()


def test_users_without_history_and_items_without_events_are_no_trouble(fitted: Fitted) -> None:
    """A user known to nobody, of one event, and with an item (23) that was never learnt from."""
    module, _, model = fitted
    one = np.ones(2, dtype=np.float32)
    histories = Histories(
        np.array([0, 0, 1, 2]), np.array([3, NEW_ITEM], dtype=np.int32), np.zeros(2, dtype=np.int32),
        np.array([1105.0, 1105.0]), one, one, one,
    )  # fmt: skip
    found = module.scores(model, histories, np.array([0, 1, 2]), np.full(3, 1110.0))
    assert found.shape == (3, NUM_ITEMS)
    assert not np.isinf(found).any()


def test_unknown_times_are_no_trouble(fitted: Fitted) -> None:
    module, settings, _ = fitted
    histories, catalogue = world()
    histories = replace(histories, time=np.full(len(histories.time), np.nan))
    model = module.fit(histories, catalogue, settings, 0)
    scenario, _ = asked(histories)
    assert np.isfinite(module.scores(model, histories, scenario, np.full(USERS, np.nan))[:, :22]).all()


def test_a_scenario_of_twenty_users_learns(fitted: Fitted) -> None:
    """Planted: users like even items or odd ones. In scenario 2, too, the right half is on top. (Popularity knows no
    tastes: there the best items are simply those that the scenario had.)"""
    module, _, model = fitted
    histories, _ = world()
    block = users_of(histories, np.arange(USERS - 20, USERS))
    found = module.scores(model, block, *asked(block))[:, :22]
    if module is scenario_popular:
        had = np.bincount(block.item_idx, minlength=NUM_ITEMS)[:22]
        assert np.corrcoef(found[0], had)[0, 1] > 0.5
        return
    taste = np.arange(USERS - 20, USERS) % 2
    right = found.reshape(20, 11, 2).mean(axis=1)
    assert (right[np.arange(20), taste] > right[np.arange(20), 1 - taste]).mean() > 0.9
