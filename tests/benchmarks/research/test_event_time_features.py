"""Features of three items in two scenarios, each row with its own date, worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.research.event_time_features import WINDOWS, Lists, Record, above, features, record, windowed
from recspark.histories import Histories

# (user, item, scenario, time, value): item 0 sold on days 100, 110, 110 (scenario 1) and 400; item 1 on day 110
EVENTS = [
    (0, 0, 0, 100.9, 4.0),
    (0, 1, 0, 110.2, 2.0),
    (1, 0, 1, 110.5, 5.0),
    (1, 0, 0, 110.5, 3.0),
    (1, 0, 0, 400.0, 4),
]


def train() -> Histories:
    user, item, scenario, time, value = (np.array(x) for x in zip(*EVENTS, strict=True))
    offsets = np.concatenate(([0], np.cumsum(np.bincount(user))))
    return Histories(offsets, item, scenario, time, np.ones(len(item)), value, np.full(len(item), np.nan))


@pytest.fixture
def rec() -> Record:
    return record(train(), num_items=3, num_scenarios=2)


def test_windows_count_strictly_before_the_day_of_the_list(rec: Record) -> None:
    """Day 110 does not count its own events; day 111 has three behind it, one of them 11 days old."""
    counts, ages = windowed(
        rec.all_keys, rec, np.array([0, 0, 0, 1, 2]), np.array([110.99, 111.0, 117.0, 110.0, 500.0])
    )
    week, all_days = WINDOWS.index(7), WINDOWS.index(0)
    assert counts[:, week].tolist() == [0, 2, 2, 0, 0]  # day 110 is 7 days before day 117: still in
    assert counts[:, WINDOWS.index(14)].tolist() == [1, 3, 2, 0, 0]  # day 100 is 17 days before day 117
    assert counts[:, all_days].tolist() == [1, 3, 3, 0, 0]
    np.testing.assert_array_equal(ages[:, 0], [10, 1, 7, np.nan, np.nan])  # since the last event
    np.testing.assert_array_equal(ages[:, 1], [10, 11, 17, np.nan, np.nan])  # since the first one


def test_days_far_outside_the_record(rec: Record) -> None:
    """Long after all events only the last two years and `all` have counts; before the first event nothing has."""
    counts, ages = windowed(rec.all_keys, rec, np.array([0, 0, 0]), np.array([5.0, 1100.0, 9000.0]))
    assert counts[:, WINDOWS.index(730)].tolist() == [0, 1, 0]  # day 400 is 700 days before day 1100
    assert counts[:, WINDOWS.index(0)].tolist() == [0, 4, 4]
    assert ages[2].tolist() == [8600, 8900]


def test_above_by_hand() -> None:
    """List 0: 3, 1, 3, nothing -> none above the 3s, two of four above 1, three above nothing; list 1: alone."""
    found = above(np.array([3.0, 1.0, 3.0, np.nan, 7.0]), np.array([0, 4, 5]))
    np.testing.assert_allclose(found, [0, 2 / 4, 0, 3 / 4, 0])


def asked(users: list[int]) -> Lists:
    """User 0 on day 111 and user 1 on day 401, each about items 0, 1, 2, in scenario 0."""
    h, rows = train(), {0: slice(0, 2), 1: slice(2, 5)}
    parts = [
        [np.asarray(a)[rows[u]] for a in (h.item_idx, h.scenario_idx, h.time, h.weight, h.value, h.price)]
        for u in users
    ]
    offsets = np.concatenate(([0], np.cumsum([len(p[0]) for p in parts])))
    histories = Histories(offsets, *(np.concatenate(x) for x in zip(*parts, strict=True)))
    time = np.array([111.0, 401.0])[users]
    return Lists(
        histories, np.zeros(len(users), int), time, 3 * np.arange(len(users) + 1), np.tile([0, 1, 2], len(users))
    )


def test_features_by_hand(rec: Record) -> None:
    scores = np.arange(6, dtype=np.float32)[:, None]
    names, matrix = features(scores, ["linear"], asked([0, 1]), rec)
    column = {name: matrix[:, f] for f, name in enumerate(names)}
    np.testing.assert_allclose(column["linear_above"], [2 / 3, 1 / 3, 0] * 2)
    np.testing.assert_allclose(column["item_count_scenario_14"][:3], np.log1p([2, 1, 0]))  # scenario 1's is not counted
    np.testing.assert_allclose(column["item_count_14"][:3], np.log1p([3, 1, 0]))
    np.testing.assert_allclose(column["item_scenarios"][:3], [2, 1, 0])
    np.testing.assert_allclose(column["item_value"][:3], [4, 2, np.nan])  # (4 + 5 + 3 + 4) / 4
    np.testing.assert_allclose(column["user_idle"], [1, 1, 1, 1, 1, 1])  # 111 - 110, 401 - 400
    np.testing.assert_allclose(column["user_age"], [11, 11, 11, 291, 291, 291])
    np.testing.assert_allclose(column["user_days"], np.log1p([2, 2, 2, 2, 2, 2]))  # user 1: days 110 and 400
    np.testing.assert_allclose(column["scenario_events_90"], np.log1p([3, 3, 3, 1, 1, 1]))
    np.testing.assert_allclose(
        column["age_vs_user"][:2], [11 - 0, 1 - 0]
    )  # both items were new when user 0 bought them


def test_rows_depend_on_their_own_list_only(rec: Record) -> None:
    scores = np.arange(6, dtype=np.float32)[:, None]
    _, both = features(scores, ["linear"], asked([0, 1]), rec)
    _, alone = features(scores[3:], ["linear"], asked([1]), rec)
    np.testing.assert_array_equal(both[3:], alone)


def test_without_time_nothing_changes_when_the_clock_does(rec: Record) -> None:
    """Moved by 50 days and halved, the events give the same columns: none of them knows a time."""
    lists = asked([0, 1])
    names, plain = features(np.zeros((6, 1), np.float32), ["linear"], lists, rec, time_features=False)
    other = record(replace(train(), time=train().time / 2 + 50), 3, 2)
    moved = replace(lists, time=lists.time * 3, histories=replace(lists.histories, time=lists.histories.time / 2))
    again = features(np.zeros((6, 1), np.float32), ["linear"], moved, other, time_features=False)[1]
    np.testing.assert_array_equal(plain, again)
    assert not [name for name in names if "idle" in name or "age" in name or "_14" in name]


def test_unknown_times_count_in_totals_only() -> None:
    unknown = record(replace(train(), time=np.full(5, np.nan)), 3, 2)
    assert unknown.counts[-1].tolist() == [4, 1, 0]
    lists = replace(asked([0, 1]), time=np.full(2, np.nan))
    _, matrix = features(np.zeros((6, 1), np.float32), ["linear"], lists, unknown)
    assert not np.isinf(matrix).any()
