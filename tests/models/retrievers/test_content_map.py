"""Content mapped onto behaviour: finds items without events, ignores noise, and solves its normal equations."""

import numpy as np
import pytest

from recspark.config.retrievers import ContentMap
from recspark.errors import DataError
from recspark.histories import Histories
from recspark.models.retrievers import content_map
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.content import unit
from recspark.models.retrievers.content_map import Grid
from tests.models.retrievers.planted import NEW, NUM_ITEMS, NUM_USERS, world

SETTINGS = ContentMap(num_factors=4)


def only(catalogue: Catalogue, *places: int) -> Catalogue:
    parts = [catalogue.parts()[place] for place in places]
    return Catalogue(catalogue.num_items, 1, np.concatenate(parts, axis=1), tuple(part.shape[1] for part in parts))


def right(model: content_map.Model, histories: Histories, taste_I: np.ndarray) -> float:
    """Share of (user, new item) scores on the right side of the user's mean."""
    unused = np.zeros(NUM_USERS, np.int64)
    scores = content_map.scores(model, histories, unused, unused * 1.0)[:, -NEW:]
    above = scores > scores.mean(axis=1, keepdims=True)
    return float((above == (taste_I[-NEW:] == (np.arange(NUM_USERS) % 2)[:, None])).mean())


def test_new_items_are_found_and_all_parts_together_find_more_than_each() -> None:
    histories, catalogue, taste_I = world()
    found = {
        name: right(content_map.fit(histories, only(catalogue, *places), SETTINGS), histories, taste_I)
        for name, places in {"first": (0,), "second": (1,), "noise": (2,), "all": (0, 1, 2)}.items()
    }
    assert found["all"] > max(found["first"], found["second"]) + 0.1 and found["all"] > 0.9
    assert abs(found["noise"] - 0.5) < 0.2


def test_noise_counts_less_than_what_is_known() -> None:
    histories, catalogue, _ = world()
    model = content_map.fit(histories, catalogue, SETTINGS)
    assert model.choice.weights[2] < min(model.choice.weights[:2])
    assert model.choice.ndcg > content_map.fit(histories, only(catalogue, 2), SETTINGS).choice.ndcg


def test_the_map_is_the_ridge_regression_of_the_weighted_parts() -> None:
    """The normal equations hold, against least squares with the ridge as further rows."""
    histories, catalogue, _ = world()
    model = content_map.fit(histories, catalogue, SETTINGS, grid=Grid(nearness=(0.25,)))
    weights, (mapped_scale, near_scale) = model.choice.weights, model.choice.scales
    known = np.arange(NUM_ITEMS - NEW)
    scaled = np.concatenate([unit(p) * w for p, w in zip(catalogue.parts(), weights, strict=True)], axis=1)
    x, y = scaled[known].astype(float), model.history_ID[known, :4].astype(float)
    solved = np.linalg.lstsq(
        np.vstack((x, np.sqrt(model.choice.ridge) * np.eye(18))), np.vstack((y, np.zeros((18, 4)))), rcond=None
    )
    np.testing.assert_allclose(model.vectors_ID[:, :4], scaled @ solved[0] * mapped_scale, atol=1e-5)
    # Nearness is the prediction of a user's own ridge regression on content: of a user of the first two items alone.
    ridge_CC = np.sqrt(model.choice.near_ridge) * np.eye(18)
    labels = np.concatenate((np.isin(known, (0, 1)).astype(float), np.zeros(18)))
    own = np.linalg.lstsq(np.vstack((x, ridge_CC)), labels, rcond=None)
    found = model.vectors_ID[:, 4:] @ model.history_ID[:2, 4:].sum(axis=0)
    np.testing.assert_allclose(found, scaled @ own[0] * near_scale, atol=1e-5)


def test_nearness_helps_where_factors_know_nothing() -> None:
    """Every user has two items of a taste that no other user shares: factors of other tastes do not help, but the two
    items have similar content."""
    rng = np.random.default_rng(0)
    content = np.repeat(rng.normal(size=(200, 16)), 2, axis=0) + 0.1 * rng.normal(size=(400, 16))
    pairs = np.arange(400).reshape(200, 2)
    others = rng.integers(0, 400, (200, 2))
    item = np.concatenate([pairs, others], axis=1).ravel().astype(np.int32)
    nothing, ones = np.zeros(len(item), np.int32), np.ones(len(item), np.float32)
    histories = Histories(4 * np.arange(201), item, nothing, np.arange(len(item)) * 1.0, ones, ones, ones)
    catalogue = Catalogue(400, 1, content.astype(np.float32))
    chosen = content_map.fit(histories, catalogue, SETTINGS).choice
    mapped = content_map.fit(histories, catalogue, SETTINGS, grid=Grid(nearness=(0.0,))).choice
    assert chosen.nearness > 0.4 and chosen.ndcg > mapped.ndcg + 0.2


def test_ndcg_of_users_by_hand() -> None:
    """Second of three for one user, first and third for the other: 1/log2(3), and (1 + 1/2) / (1 + 1/log2(3))."""
    scores, true = np.array([[3.0, 2, 1], [3, 2, 1]]), np.array([[False, True, False], [True, False, True]])
    second = 1 / np.log2(3)
    np.testing.assert_allclose(content_map.ndcg_of_users(scores, true), [second, 1.5 / (1 + second)])


def test_nothing_to_learn_from() -> None:
    histories, catalogue, _ = world()
    with pytest.raises(DataError, match="no item with events has content"):
        content_map.fit(histories, Catalogue(NUM_ITEMS, 1, np.zeros_like(catalogue.content_ID)), SETTINGS)
    with pytest.raises(DataError, match="no item with events has content"):
        content_map.fit(histories, Catalogue(NUM_ITEMS, 1), SETTINGS)
