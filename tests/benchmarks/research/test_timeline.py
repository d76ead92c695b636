import numpy as np

from benchmarks.research import timeline
from recspark.histories import Histories


def histories(offsets: list[int], item: list[int], scenario: list[int], time: list[float]) -> Histories:
    ones = np.ones(len(item))
    return Histories(np.array(offsets), np.array(item), np.array(scenario), np.array(time), ones, ones, ones)


def test_windows_stop_before_the_day() -> None:
    """Item 0 sold on days 90, 99, 99 and 100.6; a query on day 100 (at any hour): the last one does not count.

    Fading with half-life 5 at day 100: 2 x 2^(-1/5) + 2^(-10/5) = 1.9911.
    """
    events = timeline.timeline(histories([0, 4, 5], [0, 0, 0, 0, 2], [0] * 5, [90.2, 99.1, 99.9, 100.6, 50.0]), 3)
    rows = timeline.item_times(events, np.array([0, 1, 0, 2]), np.array([100.3, 100.0, 90.9, 50.0]))
    first = dict(zip(timeline.ITEM_TIMES, rows[0], strict=True))
    assert [first[f"item_count_{d}"] for d in (1, 3, 7, 14)] == [2, 2, 2, 3]
    assert first["item_count_before"] == 3 and first["item_age"] == 10
    assert [first[f"item_idle_{n}"] for n in (1, 2, 3)] == [1, 1, 10] and np.isnan(first["item_idle_5"])
    np.testing.assert_allclose(first["item_fading_5"], np.log1p(2 * 2 ** (-1 / 5) + 2**-2), rtol=1e-6)
    for row in rows[1:]:  # never sold; its first sale is that day; the same for another item
        known = dict(zip(timeline.ITEM_TIMES, row, strict=True))
        assert known["item_count_before"] == 0 and known["item_fading_5"] == 0 and np.isnan(known["item_age"])


def test_rows_do_not_depend_on_each_other() -> None:
    rng = np.random.default_rng(0)
    h = histories([0, 300], rng.integers(0, 9, 300).tolist(), [0] * 300, np.sort(rng.uniform(0, 4000, 300)).tolist())
    events = timeline.timeline(h, 10)
    item, day = rng.integers(0, 10, 50), rng.uniform(-5, 4100, 50)
    whole = timeline.item_times(events, item, day)
    for row in range(50):
        np.testing.assert_array_equal(timeline.item_times(events, item[row, None], day[row, None])[0], whole[row])
    brute = [((h.item_idx == i) & (np.floor(h.time) < np.floor(d))).sum() for i, d in zip(item, day, strict=True)]
    np.testing.assert_array_equal(whole[:, timeline.ITEM_TIMES.index("item_count_before")], brute)


def test_user_features_by_hand() -> None:
    """User 0: scenarios 0, 1, 1 at days 1, 4.2 and 4.8, a query in scenario 1 on day 4.9; user 1 has nothing."""
    h = histories([0, 3, 3], [0, 1, 1], [0, 1, 1], [1.0, 4.2, 4.8])
    pos, item = np.array([0, 1]), np.array([1, 0])
    order = timeline.user_order(h, pos, item, np.array([1, 1]), np.array([0.0, np.e - 1]))
    np.testing.assert_allclose(order[0], [3, 2 / 3, 1, 2 / 3, 1], rtol=1e-6)  # popularity log1p: 0 for item 0, 1 for 1
    assert order[1, 0] == 0 and np.isnan(order[1, 2])
    times = timeline.user_times(h, pos, np.array([4.9, 4.9]))
    np.testing.assert_allclose(times[0], [0.1, 2, 3.9, 4.9], rtol=1e-5)
    assert np.isnan(times[1, [0, 2]]).all()
