"""Values derived by hand, then equivalence: a list alone and among others, merged bins and the exact figure."""

from itertools import pairwise
from math import log2

import numpy as np
import pytest

from recspark import metrics


def test_ndcg_is_gain_over_the_ideal_list() -> None:
    # list 0: hits at ranks 1 and 3 of three relevant items; list 1: empty, one relevant; list 2: nothing relevant
    relevance, offsets = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 3, 3, 4])
    found = metrics.ndcg_at_k(relevance, offsets, np.array([3, 1, 0]), k=10)
    ideal = 1 / log2(2) + 1 / log2(3) + 1 / log2(4)
    np.testing.assert_allclose(found, [(1 / log2(2) + 1 / log2(4)) / ideal, 0.0, np.nan])


def test_the_ideal_list_has_k_places_at_most() -> None:
    found = metrics.ndcg_at_k(np.array([1.0, 1.0, 1.0]), np.array([0, 3]), np.array([50]), k=2)
    np.testing.assert_allclose(found, [1.0])


def test_recall_counts_what_was_not_retrieved() -> None:
    found = metrics.recall_at_k(np.array([1.0, 0.0, 1.0]), np.array([0, 3, 3]), np.array([4, 0]), k=2)
    np.testing.assert_allclose(found, [1 / 4, np.nan])


# list 0: hits at ranks 2 and 3, four relevant; list 1: empty, one relevant; list 2: nothing relevant; list 3: hit at
# rank 1, two relevant
HITS, OFFSETS, RELEVANT = np.array([0.0, 1.0, 1.0, 0.0, 1.0]), np.array([0, 3, 3, 4, 5]), np.array([4, 1, 0, 2])
NAN = np.nan


@pytest.mark.parametrize(
    ("name", "k", "expected"),
    [
        ("hit_rate", 1, [0, 0, NAN, 1]),
        ("hit_rate", 3, [1, 0, NAN, 1]),
        ("recall", 2, [1 / 4, 0, NAN, 1 / 2]),
        ("precision", 2, [1 / 2, 0, NAN, 1 / 2]),  # the last list's second place is empty
        ("precision", 10, [2 / 10, 0, NAN, 1 / 10]),
        ("mrr", 1, [0, 0, NAN, 1]),
        ("mrr", 3, [1 / 2, 0, NAN, 1]),
        ("map", 2, [(1 / 2) / 2, 0, NAN, 1 / 2]),
        ("map", 3, [(1 / 2 + 2 / 3) / 3, 0, NAN, 1 / 2]),
        ("map", 10, [(1 / 2 + 2 / 3) / 4, 0, NAN, 1 / 2]),  # at most four to find
        ("ndcg", 1, [0, 0, NAN, 1]),
    ],
)
def test_what_is_measured_of_the_first_k(name: str, k: int, expected: list[float]) -> None:
    np.testing.assert_allclose(metrics.AT_K[name](HITS, OFFSETS, RELEVANT, k), expected)


def test_coverage_counts_distinct_items() -> None:
    assert metrics.coverage(np.array([3, 3, 5]), 8) == 2 / 8


def test_auc_with_ties_at_half() -> None:
    labels, scores = np.array([1, 0, 1, 0]), np.array([0.9, 0.5, 0.5, 0.1])
    assert metrics.auc(labels, scores) == (1 + 1 + 0.5 + 1) / 4  # pairs: .9>.5, .9>.1, .5=.5, .5>.1
    weighted = metrics.auc(labels, scores, np.array([1.0, 2.0, 1.0, 1.0]))  # the tied negative counts twice
    assert weighted == (2 + 1 + 2 * 0.5 + 1) / 6
    assert np.isnan(metrics.auc(np.ones(3), np.arange(3.0)))


def test_auc_per_list_and_gauc() -> None:
    labels = np.array([1.0, 0, 0, 1, 0, 1, 1])
    scores = np.array([0.5, 0.5, 0.1, 0.2, 0.7, 0.3, 0.4])
    offsets = np.array([0, 3, 5, 7])
    found = metrics.auc_per_list(labels, scores, offsets)
    np.testing.assert_allclose(found, [(0.5 + 1) / 2, 0.0, np.nan])  # the last list is all positive
    assert metrics.gauc(labels, scores, offsets) == pytest.approx((3 * 0.75 + 2 * 0.0) / 5)


def test_auc_per_list_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(5, 40, 30)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    labels, scores = rng.integers(0, 2, offsets[-1]), rng.integers(0, 9, offsets[-1]) / 7
    found = metrics.auc_per_list(labels.astype(float), scores, offsets)
    for at, (low, high) in enumerate(pairwise(offsets)):
        part, score = labels[low:high] == 1, scores[low:high]
        gap = score[part][:, None] - score[~part]
        assert found[at] == pytest.approx((np.sign(gap) + 1).mean() / 2)
        assert metrics.auc(labels[low:high], score) == pytest.approx(found[at])


def test_score_bins_keep_the_order_and_the_auc() -> None:
    rng = np.random.default_rng(1)
    scores = np.concatenate((rng.normal(size=4000), rng.random(4000) * 1e-3, [-1e-30, 0.0, 1e-30])).astype(np.float32)
    bins = metrics.score_bins(np.sort(scores))
    assert (np.diff(bins) >= 0).all()
    labels = (rng.random(len(scores)) < 0.3).astype(float)
    assert metrics.auc(labels, metrics.score_bins(scores)) == pytest.approx(metrics.auc(labels, scores), abs=1e-3)


def test_a_list_has_the_same_figures_in_any_block() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(0, 30, 50)
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    relevance, relevant = rng.integers(0, 2, offsets[-1]).astype(float), rng.integers(1, 9, 50)
    for measured in metrics.AT_K.values():
        together = measured(relevance, offsets, relevant, 10)
        for at, (low, high) in enumerate(pairwise(offsets)):
            alone = measured(relevance[low:high], np.array([0, high - low]), relevant[at : at + 1], 10)
            assert alone[0] == together[at]


def test_poisson_weights_belong_to_the_user_and_have_mean_and_variance_one() -> None:
    users = np.arange(-1, 4999, dtype=np.int32)
    drawn = metrics.poisson_weights(metrics.hash_users(users, seed=7), 100)
    part = metrics.poisson_weights(metrics.hash_users(users[100:103], seed=7), 100)
    np.testing.assert_array_equal(drawn[100:103], part)
    # 500,000 draws: standard errors 0.0014 of the mean and about 0.0024 of the variance
    assert drawn.mean() == pytest.approx(1.0, abs=0.01)
    assert drawn.var() == pytest.approx(1.0, abs=0.02)
    assert (drawn != metrics.poisson_weights(metrics.hash_users(users, seed=8), 100)).any()


def test_interval() -> None:
    assert metrics.interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
    assert np.isnan(metrics.interval(np.array([np.nan]))).all()


def test_offsets_of_allows_empty_lists() -> None:
    assert metrics.offsets_of(np.array([0, 0, 2]), 4).tolist() == [0, 2, 2, 3, 3]
