"""Who is held out, what a list is labelled with, and EASE without a matrix of items."""

import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks.research import funnel
from benchmarks.research.event_time_features import Lists
from recspark.histories import Histories
from recspark.models.retrievers import linear


def met(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    """(user, item, depth) in order of time."""
    found = pd.DataFrame(rows, columns=["user", "item", "depth"])
    return found.assign(time=86400.0 * np.arange(len(rows)))


def test_the_last_bought_item_and_some_others_are_held_out() -> None:
    """User 0 bought 5 last; of the six other items three may go, the last ones. User 1 bought one of two items, and the
    other one stays. User 2 met one item only, which stays."""
    views = [(0, item, 0) for item in (1, 2, 3)]
    rows = met([*views, (0, 4, 2), (0, 5, 2), (0, 6, 1), (0, 7, 0), (1, 1, 2), (1, 2, 0), (2, 9, 2)])
    held = funnel.held_out(rows)
    assert set(zip(rows["user"][held], rows["item"][held], strict=True)) == {(0, 4), (0, 5), (0, 6), (0, 7), (1, 1)}
    rest = funnel.histories(rows[~held], 3)
    assert rest.offsets.tolist() == [0, 3, 4, 5] and rest.item_idx.tolist() == [1, 2, 3, 2, 9]


def test_a_bought_item_was_also_viewed_and_in_the_cart() -> None:
    nobody = Histories(np.zeros(3, dtype=int), *(np.zeros(0) for _ in range(6)))
    lists = Lists(nobody, np.zeros(2), np.zeros(2), np.array([0, 3, 5]), np.array([4, 5, 6, 4, 6]))
    queries = funnel.Queries(nobody, np.array([7, 7, 9]), np.array([5, 6, 4]), np.array([2, 0, 1]))  # users 7 and 9
    found = funnel.labels(lists, queries, 10)
    assert found["view"].tolist() == [0, 1, 1, 1, 0]
    assert found["cart"].tolist() == [0, 1, 0, 1, 0]
    assert found["buy"].tolist() == [0, 1, 0, 0, 0]


def test_ease_through_users_is_ease_through_items() -> None:
    rng = np.random.default_rng(0)
    items_UI = rng.random((6, 15)) < 0.3
    items_UI[:, 0] = True
    ones = np.ones(items_UI.sum())
    offsets, item = np.concatenate(([0], np.cumsum(items_UI.sum(axis=1)))), np.nonzero(items_UI)[1]
    histories = Histories(offsets, item, np.zeros(len(item), int), ones, ones, ones, ones)
    weights = linear.fit(sp.csr_matrix(items_UI.T.astype(float) @ items_UI.astype(float)), 3.0)
    np.testing.assert_allclose(
        funnel.ease(histories, 15, 3.0)(histories), items_UI.astype(np.float32) @ weights, atol=1e-5
    )
