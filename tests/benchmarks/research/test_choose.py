"""Choices on validation lists with a planted right answer."""

import numpy as np

from benchmarks.research import choose
from benchmarks.research.event_time_features import Lists
from recspark.histories import Histories


def lists_of(scenario_idx: np.ndarray, size: int) -> Lists:
    num_lists = len(scenario_idx)
    empty = Histories(np.zeros(num_lists + 1, int), *(np.zeros(0, int),) * 2, *(np.zeros(0),) * 4)
    items = np.tile(np.arange(size), num_lists)
    return Lists(empty, scenario_idx, np.zeros(num_lists), size * np.arange(num_lists + 1), items)


def test_best_counts_every_scenario_the_same() -> None:
    """Variant a is right in nine lists of scenario 0 and wrong (second of two: 1 / log2(3) = .63) in the one of
    scenario 1: 9.63 / 10 over lists. b is right in that one and in one of scenario 0: 7.05 / 10 over lists, but over
    scenarios (1 + (1 + 8 x .63) / 9) / 2 = .836 beats (1 + .63) / 2 = .815."""
    lists = lists_of(np.array([0] * 9 + [1]), 2)
    labels = np.tile([1.0, 0.0], 10)
    a = np.concatenate((np.tile([1.0, 0.0], 9), [0.0, 1.0]))
    b = 1.0 - a
    b[:2] = 1.0, 0.0
    assert choose.best(np.stack((a, b), axis=1), ["a", "b"], lists, labels) == "b"


def test_a_small_scenario_borrows_its_share_from_the_others() -> None:
    """In the 800 lists of scenario 0 own is right, in the 400 of scenario 1 pooled. Scenario 2 has two lists where
    pooled is right, too few: it gets the share that is best over all lists, own."""
    scenario = np.repeat([0, 1, 2], [800, 400, 2])
    lists, right = lists_of(scenario, 2), np.tile([0.0, 1.0], len(scenario))  # ties would favour the first row
    wrong = 1.0 - right
    own_is_right = np.repeat(scenario == 0, 2)
    own, pooled = np.where(own_is_right, right, wrong), np.where(own_is_right, wrong, right)
    shares = choose.own_shares(pooled, own, lists, right, 3)
    assert shares[0] > 0.5 and shares[1] < 0.5 and shares[2] == shares[0]


def test_scenarios_without_lists_are_nan() -> None:
    mean, count = choose.by_scenario(np.array([1.0, np.nan, 3.0]), np.array([0, 2, 0]), 3)
    np.testing.assert_array_equal(mean, [2.0, np.nan, np.nan])
    assert count.tolist() == [2, 0, 0]
