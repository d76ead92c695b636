"""Density ratios against the known ones of two bell curves."""

import numpy as np

from recspark.training.ranking.density_ratio import LARGEST, density_ratio


def test_ratio_of_two_bell_curves() -> None:
    """Sources N(0, 1), a tenth as many of the target's N(1, 1): the ratio at x is exp(x - 1/2), whatever their numbers.
    Its mean over the sources is 1."""
    rng = np.random.default_rng(0)
    sources, target = rng.normal(0, 1, (20_000, 1)), rng.normal(1, 1, (2000, 1))
    ratio = density_ratio(np.concatenate([sources, target]), np.arange(22_000) >= 20_000)
    at = np.array([[-1.0], [0.0], [0.5], [1.0]])
    np.testing.assert_allclose(ratio(at), np.exp(at[:, 0] - 0.5), rtol=0.15)
    assert abs(ratio(sources).mean() - 1) < 0.1


def test_a_spread_that_differs_is_seen() -> None:
    """Target N(0, 1/2) in sources N(0, 1): ratio 2 exp(-2 x^2 + x^2 / 2) at x: 2 at 0, .07 at 1.5."""
    rng = np.random.default_rng(1)
    sources, target = rng.normal(0, 1, (20_000, 1)), rng.normal(0, 0.5, (20_000, 1))
    ratio = density_ratio(np.concatenate([sources, target]), np.arange(40_000) >= 20_000)
    np.testing.assert_allclose(ratio(np.array([[0.0], [1.5]])), [2.0, 2 * np.exp(-1.5 * 1.5**2)], rtol=0.15)


def test_scenarios_apart_stay_finite_and_one_side_alone_is_like_itself() -> None:
    apart = np.concatenate([np.full((50, 1), -1.0), np.full((50, 1), 1.0)])
    found = density_ratio(apart, apart[:, 0] > 0)(apart)
    assert np.isfinite(found).all() and found[0] < 0.1 and found[-1] <= LARGEST
    np.testing.assert_allclose(density_ratio(apart, np.zeros(100, bool))(apart), 1.0)
