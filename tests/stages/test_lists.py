"""The order of lists: missing scores, repeats, limits, ties; the same in any block. No Spark."""

import numpy as np
import pytest

from recspark.stages import lists

NAN = np.nan


def final(scores, popular=None, repeat=None, list_idx=None):
    scores = np.array(scores, dtype=float)
    list_idx = np.zeros(len(scores), dtype=int) if list_idx is None else np.array(list_idx)
    popular = None if popular is None else np.array(popular, dtype=np.float32)
    repeat = np.zeros(len(scores), dtype=bool) if repeat is None else np.array(repeat, dtype=bool)
    return lists.final_scores(list_idx, int(list_idx.max()) + 1, scores, popular, repeat)


def test_rows_without_a_score_of_the_retriever_follow_by_popularity():
    # lowest score 2.0; rows without a score get 2 - 2 + share of their popularity range: 4 -> 1, 1 -> 0
    found = final([5.0, NAN, 2.0, NAN], popular=[9.0, 1.0, 9.0, 4.0])
    np.testing.assert_allclose(found, [5.0, 0.0, 2.0, 1.0])
    assert lists.ordered(np.zeros(4, int), found, np.arange(4)).tolist() == [0, 2, 3, 1]


def test_a_list_without_any_score_is_ordered_by_popularity():
    found = final([NAN, NAN, NAN], popular=[1.0, 3.0, 2.0])
    np.testing.assert_allclose(found, [-2.0, -1.0, -1.5])


def test_nan_of_a_trained_model_is_not_covered_up():
    found = final([NAN, 0.2])
    assert np.isnan(found[0])
    assert lists.ordered(np.zeros(2, int), found, np.arange(2)).tolist() == [1, 0]


def test_repeats_come_last_in_their_own_order():
    # best repeat 0.9 goes to 0.3 - 1, the other keeps its distance
    found = final([0.9, 0.5, 0.8, 0.3], repeat=[True, False, True, False])
    np.testing.assert_allclose(found, [-0.7, 0.5, -0.8, 0.3])
    np.testing.assert_allclose(final([0.9, 0.5], repeat=[True, True]), [0.9, 0.5])  # nothing else on the list


def limited(scores, code, most, repeat=None, list_idx=None):
    """`lists.limited`; of rows with equal scores the first one comes first."""
    n = len(scores)
    list_idx = np.zeros(n, dtype=int) if list_idx is None else np.array(list_idx)
    before = final(scores, repeat=repeat, list_idx=list_idx)
    is_repeat = np.zeros(n, dtype=bool) if repeat is None else np.array(repeat)
    code, most = np.array(code), np.full(n, most)
    return lists.limited(list_idx, int(list_idx.max()) + 1, before, np.arange(n), is_repeat, code, most)


def test_items_over_the_limit_come_last_in_their_own_order():
    # one of code 0 and one of code 1; the last has no code. 4 and 3 are over: 4 goes to 1 - 1, 3 keeps its distance
    np.testing.assert_allclose(limited([5.0, 4.0, 3.0, 2.0, 1.0], [0, 0, 0, 1, -1], 1), [5.0, 0.0, -1.0, 2.0, 1.0])
    np.testing.assert_allclose(limited([5.0, 4.0, 3.0], [0, 0, 0], 2), [5.0, 4.0, 3.0])  # 3 is last already: 4 - 1
    np.testing.assert_allclose(limited([5.0, 5.0, 1.0], [0, 0, 1], 1), [5.0, 0.0, 1.0])  # of equals the first


def test_unseen_items_over_the_limit_stay_above_repeats():
    # repeats first go below 1: 9 to 0, 8 to -1. The one at 0 is the second of code 1, so it is over, as 4.5 is:
    # 4.5 to 1 - 1 = 0, above the repeats; of these, the one of code 2 stays at 0 - 1 = -1, the other goes to -2
    found = limited([5.0, 4.5, 1.0, 9.0, 8.0], [0, 0, 1, 1, 2], 1, repeat=[False, False, False, True, True])
    np.testing.assert_allclose(found, [5.0, 0.0, 1.0, -2.0, -1.0])


def test_each_list_has_its_own_limit():
    scores, code = [0.3, 0.1, 0.7, 0.3, 0.2, 0.1], [0, 1, 2, 0, 0, 1]
    repeat, list_idx = np.array([False, False, True, False, False, False]), np.array([0, 0, 0, 1, 1, 1])
    found = limited(scores, code, 1, repeat, list_idx)
    assert found[:3].tolist() == final(scores[:3], repeat=repeat[:3]).tolist()  # to the last bit
    np.testing.assert_allclose(found[3:], [0.3, 0.1 - 1.0, 0.1])


def test_equal_scores_go_by_item_id():
    order = lists.ordered(np.zeros(4, int), np.array([1.0, 2.0, 1.0, 2.0]), np.array([3, 2, 1, 0]))
    assert order.tolist() == [3, 1, 2, 0]


def test_lists_are_numbered_by_user_and_scenario_the_default_user_too():
    scenario, user = np.array([1, 0, 1, 0, 1]), np.array([7, 7, 7, -1, -1])
    at, first = lists.list_numbers(scenario, user)
    assert at.tolist() == [3, 2, 3, 0, 1]
    assert first.tolist() == [3, 4, 1, 0]


@pytest.mark.parametrize("popular", [True, False])
def test_a_list_is_the_same_alone_and_beside_others(popular):
    rng = np.random.default_rng(0)
    list_idx = np.sort(rng.integers(0, 20, 300))
    scores = np.where(rng.random(300) < 0.3, NAN, rng.normal(size=300))
    by, repeat = rng.random(300).astype(np.float32), rng.random(300) < 0.2
    in_one_block = lists.final_scores(list_idx, 20, scores, by if popular else None, repeat)
    for one in range(20):
        at = list_idx == one
        alone = lists.final_scores(np.zeros(at.sum(), int), 1, scores[at], by[at] if popular else None, repeat[at])
        np.testing.assert_array_equal(alone, in_one_block[at])
