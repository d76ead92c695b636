"""EASE by scenario on four items, weights worked out by hand."""

import numpy as np
import pytest

from benchmarks.research import scenario_linear
from recspark.config.retrievers import Linear
from recspark.errors import ConfigError
from recspark.histories import Histories
from recspark.models.retrievers.catalogue import Catalogue

CATALOGUE = Catalogue(num_items=4, num_scenarios=2)


def settings_of(l2: float = 1.0, half_life_days: float = float("inf"), **rest: float) -> scenario_linear.Settings:
    return scenario_linear.Settings(Linear(l2=l2, half_life_days=half_life_days), **rest)


def histories(users: list[list[tuple[int, int, float]]]) -> Histories:
    """Users as lists of (item, scenario, day)."""
    offsets = np.concatenate(([0], np.cumsum([len(user) for user in users])))
    item, scenario, time = (np.array([event[x] for user in users for event in user]) for x in range(3))
    ones = np.ones(len(item))
    return Histories(offsets, item, scenario, time.astype(float), ones, ones, ones)


# scenario 0: one user with 0 and 1, one with 2 alone; scenario 1: one user with 0 and 2
TRAINED = histories([[(0, 0, 0), (1, 0, 0)], [(2, 0, 0)], [(0, 1, 0), (2, 1, 0)]])
QUERY = histories([[(0, 0, 5)]])


def scores(model: scenario_linear.Model, scenario: int) -> list[float]:
    return scenario_linear.scores(model, QUERY, np.array([scenario]), np.zeros(1))[0].tolist()


def test_own_weights_learn_from_their_scenario_only() -> None:
    """l2 = 1. Scenario 0: G + I = [[2, 1], [1, 2]] on items 0, 1: 0 adds 1/2 to 1 (see test_linear). Scenario 1: the
    same with item 2 instead of 1. Item 3 has no event."""
    model = scenario_linear.fit(TRAINED, CATALOGUE, settings_of(own_l2=1.0, own_share=1.0))
    np.testing.assert_allclose(scores(model, 0), [0, 1 / 2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(scores(model, 1), [0, 0, 1 / 2, 0], atol=1e-6)


def test_pooled_weights_learn_from_all_scenarios() -> None:
    """G + I = [[3, 1, 1], [1, 2, 0], [1, 0, 3]], determinant 13, inverse times 13: row 0 = [6, -3, -2], P11 = 8,
    P22 = 5. B[0, 1] = 3/8, B[0, 2] = 2/5, in either scenario."""
    model = scenario_linear.fit(TRAINED, CATALOGUE, settings_of())
    for scenario in (0, 1):
        np.testing.assert_allclose(scores(model, scenario), [0, 3 / 8, 2 / 5, 0], atol=1e-6)


def test_a_blend_is_the_sum_of_its_shares() -> None:
    """A quarter own in scenario 0: item 1 gets 3/4 x 3/8 + 1/4 x 1/2; all pooled in scenario 1."""
    pooled = scenario_linear.fit(TRAINED, CATALOGUE, settings_of())
    own = scenario_linear.fit(TRAINED, CATALOGUE, settings_of(own_l2=1.0, own_share=1.0))
    model = scenario_linear.join(pooled, own, np.array([0.25, 0.0]))
    np.testing.assert_allclose(scores(model, 0), [0, 9 / 32 + 1 / 8, 3 / 4 * 2 / 5, 0], atol=1e-6)
    np.testing.assert_allclose(scores(model, 1), [0, 3 / 8, 2 / 5, 0], atol=1e-6)


def test_halves_that_do_not_fit_are_refused() -> None:
    pooled = scenario_linear.fit(TRAINED, CATALOGUE, settings_of())
    own = scenario_linear.fit(TRAINED, CATALOGUE, settings_of(own_share=1.0, half_life_days=5.0))
    with pytest.raises(ConfigError, match="expected the same"):
        scenario_linear.join(pooled, own, np.zeros(2))
    with pytest.raises(ConfigError, match="no pooled or no own"):
        scenario_linear.join(pooled, pooled, np.zeros(2))


def test_too_many_items_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(scenario_linear, "MAX_ITEMS", 3)
    with pytest.raises(ConfigError, match=r"found 4 items, expected at most 3 .*co_occurrence"):
        scenario_linear.fit(TRAINED, CATALOGUE, settings_of())


def test_old_events_count_less() -> None:
    """At a half-life of 5 days, item 0, 10 days before item 3 (which adds nothing), counts a quarter: 3/8 / 4."""
    model = scenario_linear.fit(TRAINED, CATALOGUE, settings_of(half_life_days=5.0))
    query = histories([[(0, 0, 0), (3, 0, 10)]])
    found = scenario_linear.scores(model, query, np.zeros(1, int), np.full(1, 99.0))[0]
    np.testing.assert_allclose(found[1], 3 / 32, atol=1e-6)


def test_dropout_adds_to_the_ridge_of_frequent_items() -> None:
    """p = 1/2 doubles the diagonal of G: G + I = [[3, 1], [1, 3]] for two items of one user; B = 1/3."""
    trained = histories([[(0, 0, 0), (1, 0, 0)]])
    model = scenario_linear.fit(trained, CATALOGUE, settings_of(dropout=0.5))
    np.testing.assert_allclose(scores(model, 0), [0, 1 / 3, 0, 0], atol=1e-6)


def test_busy_users_count_less_by_power() -> None:
    """Power 1: a user with two items counts a half, so G = [[.5, .5], [.5, .5]]; with l2 = 1 B = .5 / 1.5 = 1/3."""
    trained = histories([[(0, 0, 0), (1, 0, 0)]])
    model = scenario_linear.fit(trained, CATALOGUE, settings_of(power=1.0))
    np.testing.assert_allclose(scores(model, 0), [0, 1 / 3, 0, 0], atol=1e-6)
