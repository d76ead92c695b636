"""The list for users without any history."""

import numpy as np

from benchmarks.research import cold_start, shops


def data(item: list[int], from_end: list[int]) -> shops.Data:
    """A user with one event a row, among four items of one shop."""
    users = np.arange(len(item))
    zeros = np.zeros(len(item), dtype=int)
    return shops.Data(
        users, np.array(item), zeros, np.array(from_end), np.array([0, 4]), np.ones((4, 1)), ("a",), len(item)
    )


def test_what_people_did_last_wins_where_it_says_more() -> None:
    """Item 0 sold most, but before the end; everybody's validation event is item 3, then comes item 1, which is told
    from item 2 by nothing but its events."""
    found = cold_start.for_nobody(data([0] * 30 + [1] * 2 + [2] + [3] * 20, [4] * 30 + [3] * 3 + [1] * 20), 0)
    assert cold_start.order(found).tolist() == [1, 2, 3, 0]


def test_popularity_stays_where_the_end_says_nothing() -> None:
    """Validation events are item 0, which sold most as well: the first of equal counts is taken, all events."""
    found = cold_start.for_nobody(data([0] * 30 + [1] * 5 + [0] * 10, [4] * 35 + [1] * 10), 0)
    np.testing.assert_allclose(found, [30 + 30 / 31, 5 + 5 / 31, 0, 0])
