"""The gate on hand-made users: shrinkage by arithmetic, then which mode is published where."""

import numpy as np
import pytest
from scipy import stats

from recspark import gate

MODES = ("ranker", "linear", "popular")
SIMPLE = ("linear", "popular")


def moments(scenarios: list[np.ndarray]) -> gate.GainMoments:
    """From NDCG of (users, modes) per scenario."""
    return gate.GainMoments(
        np.array([len(x) for x in scenarios]),
        np.stack([x.sum(axis=0) for x in scenarios]),
        np.stack([x.T @ x for x in scenarios]),
    )


def users(num: int, means: tuple[float, ...], seed: int, sd: float = 0.1) -> np.ndarray:
    return np.asarray(means) + np.random.default_rng(seed).normal(0, sd, (num, len(means)))


def decide(
    choosing: list[np.ndarray], confirming: list[np.ndarray], published: dict[str, str] | None = None
) -> dict[str, gate.Decision]:
    names = [f"s{i}" for i in range(len(choosing))]
    found = gate.decide(names, MODES, moments(choosing), moments(confirming), published or {}, SIMPLE)
    return {d.scenario: d for d in found}


def test_between_variance_by_hand() -> None:
    # y = 0, 2 with v = 1, 1: mean 1, Q = 1 + 1 = 2, C = 2 - 2 / 2 = 1, tau^2 = (2 - 1) / 1
    assert gate.between_variance(np.array([0.0, 2.0]), np.array([1.0, 1.0])) == pytest.approx(1.0)
    assert gate.between_variance(np.array([0.0, 0.1]), np.array([1.0, 1.0])) == 0.0  # no more than chance
    assert gate.between_variance(np.array([0.3]), np.array([1.0])) == 0.0


def test_one_scenario_has_its_own_mean_and_a_t_interval() -> None:
    count, mean, squares = np.array([50.0]), np.array([0.02]), np.array([0.5])
    pooled = (0.5 + 0.25) / (49 + 1)
    variance = (0.5 + 20 * pooled) / (49 + 20) / 50
    found = gate.shrink(count, mean, squares)
    assert found.mean[0] == pytest.approx(0.02)
    assert found.upper[0] - 0.02 == pytest.approx(stats.t.ppf(0.975, 49) * variance**0.5)


def test_small_scenarios_borrow_and_empty_ones_get_the_prior() -> None:
    count = np.array([1000.0, 1000.0, 5.0, 0.0])
    mean = np.array([0.02, 0.03, -0.2, np.nan])
    found = gate.shrink(count, mean, np.array([10.0, 10.0, 0.1, 0.0]))
    assert abs(found.mean[0] - 0.02) < 0.005
    assert -0.2 < found.mean[2] < 0.03  # shrunk towards the others, since it has only five users
    width = found.upper - found.lower
    assert width[0] < width[2]
    assert np.isfinite([found.mean[3], found.lower[3]]).all()
    assert found.mean[3] == pytest.approx(found.mean[:3].mean(), abs=0.08)


def test_a_better_ranker_is_published_also_in_a_scenario_without_users() -> None:
    better = (0.15, 0.10, 0.08)
    found = decide(
        [users(400, better, 1), users(300, better, 2), users(3, better, 3), users(0, better, 0)],
        [users(400, better, 4), users(300, better, 5), users(3, better, 6), users(0, better, 0)],
    )
    assert [d.mode for d in found.values()] == ["ranker"] * 4
    assert [d.incumbent for d in found.values()] == ["linear"] * 4  # the better of the two simple ones
    assert found["s2"].lower > 0
    assert found["s2"].num_users == 3
    assert "ranker replaces linear" in found["s0"].reason


def test_without_a_sure_gain_the_incumbent_stays() -> None:
    equal = (0.10, 0.10, 0.08)
    found = decide([users(300, equal, 1)], [users(300, equal, 2)])
    assert found["s0"].mode == "linear"
    assert "stays" in found["s0"].reason


def test_a_gain_on_the_choosing_half_only_does_not_count() -> None:
    lucky, equal = (0.2, 0.1, 0.1), (0.1, 0.1, 0.1)
    assert decide([users(300, lucky, 1)], [users(300, equal, 2)])["s0"].mode == "linear"
    assert decide([users(300, equal, 3) - [0.05, 0, 0]], [users(300, lucky, 4)])["s0"].mode == "linear"


def test_a_mode_that_lost_on_the_choosing_half_is_not_published() -> None:
    # the best challenger, but below the incumbent; its gain on the other half may be chance
    lost, won = (0.05, 0.10, 0.01), (0.20, 0.10, 0.01)
    found = decide([users(300, lost, 1)], [users(300, won, 2)])["s0"]
    assert (found.mode, found.challenger) == ("linear", "ranker")
    assert "no mode gained on the choosing half" in found.reason


def test_two_agreeing_users_prove_nothing() -> None:
    win = np.array([[1.0, 0.0, 0.0]] * 2)
    assert decide([win], [win])["s0"].mode == "linear"


def test_a_scenario_can_differ_from_the_rest() -> None:
    better, worse = (0.20, 0.10, 0.08), (0.02, 0.10, 0.08)
    halves = [[users(2000, better, s), users(2000, better, s + 1), users(2000, worse, s + 2)] for s in (10, 20)]
    assert [d.mode for d in decide(*halves).values()] == ["ranker", "ranker", "linear"]


def test_the_published_mode_is_the_incumbent_and_falls_when_a_simple_one_beats_it() -> None:
    steady, broken = (0.10, 0.10, 0.05), (0.02, 0.10, 0.05)
    published = {"s0": "ranker"}
    assert decide([users(400, steady, 1)], [users(400, steady, 2)], published)["s0"].mode == "ranker"
    fallen = decide([users(400, broken, 1)], [users(400, broken, 2)], published)["s0"]
    assert (fallen.mode, fallen.incumbent) == ("linear", "ranker")


def test_a_mode_that_no_longer_exists_gives_way_to_the_simple_one() -> None:
    steady = (0.10, 0.10, 0.05)
    assert decide([users(9, steady, 1)], [users(9, steady, 2)], {"s0": "transformer"})["s0"].incumbent == "linear"


def test_no_users_at_all() -> None:
    none = users(0, (0, 0, 0), 0)
    found = decide([none, none], [none, none], {"s1": "popular"})
    assert [d.mode for d in found.values()] == ["linear", "popular"]
    assert "nobody to measure" in found["s0"].reason
    assert np.isnan(found["s0"].gain)


def test_a_transfer_that_surely_hurts_is_named_where_it_does() -> None:
    """`ranker` transfers and `linear` takes the part of `alone`: s0 gains, s1 loses .08, s2 neither gains nor loses."""
    helps, hurts, nothing = (0.15, 0.10, 0.01), (0.02, 0.10, 0.01), (0.10, 0.10, 0.01)
    halves = [moments([users(2000, means, 3 * half + at) for at, means in enumerate((helps, hurts, nothing))])
              for half in (0, 1)]  # fmt: skip
    before = gate.decide(["s0", "s1", "s2"], MODES, *halves, {}, SIMPLE)
    after = gate.name_negative_transfer(before, MODES, halves, "linear", ["ranker"])
    assert [d.mode for d in after] == ["ranker", "linear", "linear"]
    assert after[0] == before[0] and after[2] == before[2]
    assert after[1].reason.startswith(f"{before[1].reason}; negative transfer: ranker is worse than linear by 0.0")
    worse = float(after[1].reason.split(" by ")[1].split(" ")[0])
    assert abs(worse - 0.08) < 0.01  # sd of a mean of 4000 differences of sd .14: .002, and little shrinkage


def test_a_loss_that_may_be_chance_is_not_named() -> None:
    halves = [moments([users(4, (0.07, 0.10, 0.01), seed)]) for seed in (1, 2)]
    decisions = gate.decide(["s0"], MODES, *halves, {}, SIMPLE)
    assert gate.name_negative_transfer(decisions, MODES, halves, "linear", ["ranker"]) == decisions
