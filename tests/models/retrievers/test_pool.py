import numpy as np
import scipy.sparse as sp

from recspark.models.retrievers.pool import append, exactly, explaining_item, pool


def test_union_by_hand() -> None:
    """List 0: the first retriever finds 4, 2; the second 2, 5. Item 2 is second and first: the second is its best.
    List 1: both find item 3 first: the first retriever is best."""
    rows = pool([np.array([[4, 2], [3, -1]]), np.array([[2, 5], [3, -1]])], num_lists=2, num_items=6)
    assert rows.list_pos.tolist() == [0, 0, 0, 1] and rows.item_idx.tolist() == [2, 4, 5, 3]
    np.testing.assert_array_equal(rows.ranks, [[2, 1], [1, np.nan], [np.nan, 2], [1, 1]])
    assert rows.best.tolist() == [1, 0, 1, 0]


def test_append_keeps_the_order() -> None:
    rows = append(pool([np.array([[4], [3]])], 2, 6), np.array([0]), np.array([1]))
    assert rows.list_pos.tolist() == [0, 0, 1] and rows.item_idx.tolist() == [1, 4, 3]
    assert rows.best.tolist() == [-1, 0, 0] and np.isnan(rows.ranks[0]).all()


def test_exactly_the_given_rows() -> None:
    """Given: items 1 (which no retriever found) and 4 for list 0, none for list 1, item 3 for list 2."""
    found = pool([np.array([[4, 2], [3, -1], [3, 5]]), np.array([[2, 5], [3, -1], [-1, -1]])], 3, 6)
    rows = exactly(found, np.array([0, 0, 2]), np.array([1, 4, 3]), num_items=6)
    assert rows.list_pos.tolist() == [0, 0, 2] and rows.item_idx.tolist() == [1, 4, 3]
    assert rows.best.tolist() == [-1, 0, 0]
    np.testing.assert_array_equal(rows.ranks, [[np.nan, np.nan], [1, np.nan], [1, np.nan]])


def test_the_explaining_item_has_the_largest_contribution() -> None:
    """User 0 has items 0 and 1, user 1 none. For item 2, item 1 contributes more; for item 3 both equally: tie_rank."""
    weights = np.array([[0, 0, 0.1, 0.5], [0, 0, 0.9, 0.5], [0, 0, 0, 0], [0, 0, 0, 0]])
    history = sp.csr_matrix(np.array([[1, 1, 0, 0], [0, 0, 0, 0]]))
    user_pos, item_idx, tie_rank = np.array([0, 0, 1]), np.array([2, 3, 2]), np.array([1, 0, 2, 3])
    found = explaining_item(history, user_pos, item_idx, lambda known, to: weights[np.ix_(known, to)], tie_rank)
    assert found.tolist() == [1, 1, -1] and found.dtype == np.int32
    nothing = np.array([], dtype=np.int64)
    assert explaining_item(history, nothing, nothing, lambda known, to: weights[np.ix_(known, to)], tie_rank).shape == (
        0,
    )
