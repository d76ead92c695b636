import numpy as np
import pytest
import scipy.sparse as sp

from recspark.models.retrievers import affinity

# user 0: item 1 bought, item 2 bought and returned, item 1 again; user 1: nothing; user 2: three weights that cancel
OFFSETS = np.array([0, 4, 4, 7])
ITEMS = np.array([1, 2, 2, 1, 0, 0, 0])
WEIGHT = np.array([1, 1, -1, 1, 0.1, 0.2, -0.3])
TIME = np.array([10.0, 11.0, 12.0, 13.0, 5.0, 6.0, 7.0])


def test_a_returned_purchase_is_seen_but_not_positive() -> None:
    np.testing.assert_array_equal(affinity.seen(OFFSETS, ITEMS, 3).toarray(), [[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    np.testing.assert_array_equal(
        affinity.positives(OFFSETS, ITEMS, WEIGHT, 3).toarray(), [[0, 1, 0], [0, 0, 0], [0, 0, 0]]
    )


def test_last_times_follow_the_entries() -> None:
    seen = affinity.seen(OFFSETS, ITEMS, 3)
    np.testing.assert_array_equal(affinity.last_times(OFFSETS, ITEMS, TIME, seen), [13.0, 12.0, 7.0])
    positives = affinity.positives(OFFSETS, ITEMS, WEIGHT, 3)
    np.testing.assert_array_equal(affinity.last_times(OFFSETS, ITEMS, TIME, positives), [13.0])


def test_recent_purchases_count_more() -> None:
    """As of day 14 with a half-life of 1 day: item 1, with its last event on day 13, counts a half; the returned
    item 2 nothing. On day 1000 item 1 still counts one level, not 0."""
    events = (OFFSETS, ITEMS, WEIGHT, TIME)
    expected = [[0, 1 / 2, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(affinity.recent(*events, 3, 14.0, 1.0).toarray(), expected)
    assert affinity.recent(*events, 3, 1000.0, 1.0).data.tolist() == [1 / affinity.LEVELS]


def test_empty_block() -> None:
    none = affinity.seen(np.array([0, 0]), np.array([], dtype=np.int32), 3)
    assert none.shape == (1, 3) and none.nnz == 0
    assert affinity.last_times(np.array([0, 0]), np.array([], dtype=np.int32), np.array([]), none).shape == (0,)


def test_strongest_is_the_largest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """User 0 has item 0 (affinity 1) and 1 (1/2): max(1 x 2, .5 x 6) = 3 and max(1 x -1, .5 x -4) = -1; user 1 nothing;
    user 2 item 1. Dense or sparse, in chunks of any size."""
    history = sp.csr_matrix(np.array([[1, 0.5], [0, 0], [0, 1]], dtype=np.float32))
    weights = np.array([[2, -1], [6, -4]], dtype=np.float32)
    for cells in (1, 4, 1 << 20):
        monkeypatch.setattr(affinity, "STRONGEST_CELLS", cells)
        for form in (weights, sp.csr_matrix(weights)):
            np.testing.assert_array_equal(affinity.strongest(history, form), [[3, -1], [0, 0], [6, -4]])
