import numpy as np

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
    """As of day 14 with a half-life of 1 day: item 1, last had on day 13, counts a half; the returned item 2 nothing.
    On day 1000 it still counts one level: known, if hardly."""
    events = (OFFSETS, ITEMS, WEIGHT, TIME)
    expected = [[0, 1 / 2, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(affinity.recent(*events, 3, 14.0, 1.0).toarray(), expected)
    assert affinity.recent(*events, 3, 1000.0, 1.0).data.tolist() == [1 / affinity.LEVELS]


def test_empty_block() -> None:
    none = affinity.seen(np.array([0, 0]), np.array([], dtype=np.int32), 3)
    assert none.shape == (1, 3) and none.nnz == 0
    assert affinity.last_times(np.array([0, 0]), np.array([], dtype=np.int32), np.array([]), none).shape == (0,)
