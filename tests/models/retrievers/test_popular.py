import numpy as np

from recspark.models.retrievers import popular


def test_decay_halves() -> None:
    np.testing.assert_allclose(popular.exponential_decay(np.array([0.0, 14.0, 28.0]), 14.0), [1, 1 / 2, 1 / 4])


def fit(net: list[list[float]], shrinkage: float) -> np.ndarray:
    """Of every item in every group, from a dense matrix of net counts."""
    counts = np.array(net)
    mixed = np.random.default_rng(0).permutation(counts.size)  # cells come in any order
    model = popular.fit(mixed, counts.ravel()[mixed], *counts.shape, shrinkage)
    again = popular.from_arrays(popular.to_arrays(model))
    scores = np.stack([again.of_group(group) for group in range(len(counts))])
    group, item = np.indices(counts.shape).reshape(2, -1)
    np.testing.assert_array_equal(again.at(group, item), scores.ravel())
    assert scores.dtype == np.float32
    return scores


def test_shrinkage_by_hand() -> None:
    """Group 0 has 6 + 2 events, group 1 has 0 + 2, so all together are 6 : 4 of 10, shares .6 and .4.

    With shrinkage 2: group 0 (6 + 2 * .6) / 10 = .72, (2 + 2 * .4) / 10 = .28; group 1 (0 + 1.2) / 4, (2 + .8) / 4.
    """
    scores = fit([[6.0, 2.0], [0.0, 2.0]], shrinkage=2.0)
    np.testing.assert_allclose(scores, [[0.72, 0.28], [0.3, 0.7]], rtol=1e-6)


def test_an_empty_group_follows_the_rest() -> None:
    counts = [[3.0, 1.0], [0.0, 0.0]]
    np.testing.assert_allclose(fit(counts, 100.0)[1], [0.75, 0.25])
    np.testing.assert_allclose(fit(counts, 0.0)[1], [0.75, 0.25])


def test_more_returns_than_purchases_are_never_negative() -> None:
    scores = fit([[2.0, -5.0]], 1.0)
    assert (scores >= 0).all() and scores[0, 1] == 0
    assert not fit([[0.0, -5.0]], 1.0).any()


def test_a_user_counts_once() -> None:
    """As of day 10, half-life 1 day. Pair 0 is a robot: a thousand events on day 9 are one, 1/2. Pair 1: an event of
    weight 3 on day 7 and one of weight 1 on day 9: 3/8 + 1/2, less than one of weight 3 on day 9. Pair 2 bought on
    day 8 and returned on day 9: 1/4 - 1/2. Pair 3 returned twice on day 9, and looked, with weight 0, on day 10."""
    weight = np.array([*[1.0] * 1000, 3, 1, 1, -1, -1, -1, 0])
    time = np.array([*[9.0] * 1000, 7, 9, 8, 9, 9, 9, 10])
    pair = np.array([*[0] * 1000, 1, 1, 2, 2, 3, 3, 3])
    found = popular.net_of_pairs(weight, time, pair, 5, as_of_days=10.0, half_life_days=1.0)
    np.testing.assert_allclose(found, [1 / 2, 7 / 8, -1 / 4, -1 / 2, 0])
