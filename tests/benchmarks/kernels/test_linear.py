import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks.kernels import linear as benchmark


def test_the_last_fifth_of_a_user_is_hidden() -> None:
    """Of 5 items the last by time; a user with 2 items hides none."""
    events = pd.DataFrame({"user_id": [1] * 5 + [2] * 2, "item_id": list("abcdeab"), "time": [5, 1, 2, 3, 4, 1, 2]})
    history, hidden = benchmark.split(events)
    items = pd.unique(events.sort_values(["user_id", "time"])["item_id"])
    assert [items[i] for i in hidden.nonzero()[1]] == ["a"] and history.nnz == 6


def test_ndcg_by_hand() -> None:
    """The user has item 0, which adds 1 to item 1 and 2 to item 2; hidden is item 1, at rank 2: 1 / log2(3)."""
    weights = np.zeros((3, 3), np.float32)
    weights[0] = [0, 1, 2]
    row = [sp.csr_matrix(np.array([values], dtype=float)) for values in ([1, 0, 0], [0, 1, 0])]
    assert np.isclose(benchmark.ndcg(row[0], weights, row[1]), 1 / np.log2(3))


def test_the_planted_catalogue_has_users_with_items_of_their_own() -> None:
    """Of 2,000 items, a user's own 500 get half of the events, and a quarter or less of the popular half."""
    history = benchmark.planted(2000)
    user, item = history.nonzero()
    share = np.mean(item // 500 == user % 4)
    assert history.shape == (2000, 2000) and 0.5 < share < 0.75
