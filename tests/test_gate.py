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


def decide(scenarios: list[np.ndarray], published: dict[str, str] | None = None) -> dict[str, gate.Decision]:
    names = [f"s{i}" for i in range(len(scenarios))]
    found = gate.decide(names, MODES, moments(scenarios), published or {}, SIMPLE)
    return {d.scenario: d for d in found}


def test_between_variance_by_hand() -> None:
    # y = 0, 3 with v = 1, 1: mean 1.5, Q = 2 * 1.5^2 = 4.5, C = 2 - 2 / 2 = 1, tau^2 = (4.5 - 1) / 1
    assert gate.between_variance(np.array([0.0, 3.0]), np.array([1.0, 1.0])) == pytest.approx(3.5)
    # y = 0, 2: Q = 2, below 3.84, the 95 % point of chi square with 1 degree of freedom: may be chance
    assert gate.between_variance(np.array([0.0, 2.0]), np.array([1.0, 1.0])) == 0.0
    assert gate.between_variance(np.array([0.0, 0.1]), np.array([1.0, 1.0])) == 0.0  # no more than chance
    assert gate.between_variance(np.array([0.3]), np.array([1.0])) == 0.0


def test_one_scenario_has_its_own_mean_and_a_t_interval() -> None:
    count, mean, squares = np.array([50.0]), np.array([0.02]), np.array([0.5])
    pooled = (0.5 + 0.25) / (49 + 1)
    variance = (0.5 + 20 * pooled) / (49 + 20) / 50
    found = gate.shrink(count, mean, squares)
    assert found.mean[0] == pytest.approx(0.02)
    assert found.upper[0] - 0.02 == pytest.approx(stats.t.ppf(0.975, 49) * variance**0.5)


def test_a_scenario_where_two_modes_hardly_differ_does_not_outweigh_the_others() -> None:
    """s0: gain .02 of sd .1 over 400 users, 4 standard errors. s1: the lists are nearly the same, gain 0 of sd .001.
    Weighted by their precision the mean would be 0; over users it is .01, and s0 has nothing to fear from s1."""
    noise = np.random.default_rng(0).normal(0, 1, (2, 400))
    noise = (noise - noise.mean(axis=1, keepdims=True)) / noise.std(axis=1, keepdims=True)
    gain = np.stack([0.02 + 0.1 * noise[0], 0.001 * noise[1]])
    found = gate.shrink(np.array([400.0, 400.0]), gain.mean(axis=1), gain.var(axis=1) * 400)
    assert found.pooled == pytest.approx(0.01) and found.pooled_lower > 0.003
    assert found.mean[0] > 0.008 and found.probability[0] > 0.99


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


def test_the_factor_of_one_mode_is_that_of_a_t_test() -> None:
    one = moments([users(30, (0.1, 0.1, 0.1), 1)])
    found = gate.largest_by_chance(one, [0, 2], np.array([2]))  # mode 2 is the incumbent itself
    assert np.quantile(found, 0.975) == pytest.approx(stats.t.ppf(0.975, 29), abs=0.06)


def test_the_factor_grows_with_modes_that_differ_and_not_with_copies() -> None:
    """Nine independent modes against a constant one: the largest of nine standard normals is below x with probability
    Phi(x)^9. Nine copies of one are one."""
    noise = np.random.default_rng(0).normal(0, 0.1, (4000, 9))
    different = moments([np.column_stack((np.zeros(4000), noise))])
    copies = moments([np.column_stack((np.zeros(4000), *[noise[:, 0]] * 9))])
    factors = [
        np.quantile(gate.largest_by_chance(found, range(10), np.array([0])), 0.975) for found in (different, copies)
    ]
    assert factors[0] == pytest.approx(stats.norm.ppf(0.975 ** (1 / 9)), abs=0.06)
    assert factors[1] == pytest.approx(stats.norm.ppf(0.975), abs=0.06)


def test_a_better_ranker_is_published_also_in_a_scenario_without_users() -> None:
    better = (0.15, 0.10, 0.08)
    found = decide([users(800, better, 1), users(600, better, 2), users(6, better, 3), users(0, better, 0)])
    assert [d.mode for d in found.values()] == ["ranker"] * 4
    assert [d.incumbent for d in found.values()] == ["linear"] * 4  # the better of the two simple ones
    assert found["s2"].lower > 0
    assert found["s2"].num_users == 6
    assert "ranker replaces linear" in found["s0"].reason


def test_without_a_sure_gain_the_incumbent_stays() -> None:
    found = decide([users(600, (0.105, 0.10, 0.08), 1)])
    assert found["s0"].mode == "linear"
    assert "linear stays: the gain of ranker is not surely above 0" in found["s0"].reason


def test_the_best_challenger_that_lost_is_not_published() -> None:
    found = decide([users(600, (0.05, 0.10, 0.01), 1)])["s0"]
    assert (found.mode, found.challenger) == ("linear", "ranker")
    assert "no mode gained" in found.reason


def test_two_agreeing_users_prove_nothing() -> None:
    assert decide([np.array([[1.0, 0.0, 0.0]] * 2)])["s0"].mode == "linear"


def test_a_scenario_can_differ_from_the_rest() -> None:
    better, worse = (0.20, 0.10, 0.08), (0.02, 0.10, 0.08)
    found = decide([users(4000, better, 10), users(4000, better, 11), users(4000, worse, 12)])
    assert [d.mode for d in found.values()] == ["ranker", "ranker", "linear"]


def test_the_published_mode_is_the_incumbent_and_falls_when_a_simple_one_beats_it() -> None:
    steady, broken = (0.10, 0.10, 0.05), (0.02, 0.10, 0.05)
    published = {"s0": "ranker"}
    assert decide([users(800, steady, 1)], published)["s0"].mode == "ranker"
    fallen = decide([users(800, broken, 1)], published)["s0"]
    assert (fallen.mode, fallen.incumbent) == ("linear", "ranker")


def test_a_mode_that_no_longer_exists_gives_way_to_the_simple_one() -> None:
    assert decide([users(18, (0.10, 0.10, 0.05), 1)], {"s0": "transformer"})["s0"].incumbent == "linear"


def test_no_users_at_all() -> None:
    none = users(0, (0, 0, 0), 0)
    found = decide([none, none], {"s1": "popular"})
    assert [d.mode for d in found.values()] == ["linear", "popular"]
    assert "no user to measure" in found["s0"].reason
    assert np.isnan(found["s0"].gain)


def test_a_transfer_that_surely_hurts_is_named_where_it_does() -> None:
    """`ranker` transfers and `linear` takes the part of `alone`: s0 gains, s1 loses .08, s2 neither gains nor loses."""
    helps, hurts, nothing = (0.15, 0.10, 0.01), (0.02, 0.10, 0.01), (0.10, 0.10, 0.01)
    all_users = moments([users(4000, means, at) for at, means in enumerate((helps, hurts, nothing))])
    before = gate.decide(["s0", "s1", "s2"], MODES, all_users, {}, SIMPLE)
    after = gate.name_negative_transfer(before, MODES, all_users, "linear", ["ranker"])
    assert [d.mode for d in after] == ["ranker", "linear", "linear"]
    assert after[0] == before[0] and after[2] == before[2]
    assert after[1].reason.startswith(f"{before[1].reason}; negative transfer: ranker is worse than linear by 0.0")
    worse = float(after[1].reason.split(" by ")[1].split(" ")[0])
    assert abs(worse - 0.08) < 0.01  # sd of a mean of 4000 differences of sd .14: .002, and little shrinkage


def test_a_loss_that_may_be_chance_is_not_named() -> None:
    few = moments([users(8, (0.07, 0.10, 0.01), 1)])
    decisions = gate.decide(["s0"], MODES, few, {}, SIMPLE)
    assert gate.name_negative_transfer(decisions, MODES, few, "linear", ["ranker"]) == decisions


# -- over many draws ---------------------------------------------------------------------------------------------------

DRAWS = 500
TEN = tuple(f"mode{n}" for n in range(10))  # mode0, the incumbent, and mode1 are simple
SD = 0.2  # of a user's gain


def sizes(rng: np.random.Generator) -> np.ndarray:
    """Users of a rich scenario, of a middle one and of six poor ones."""
    return np.array([600, 200, *rng.integers(5, 51, 6)])


def draw(
    rng: np.random.Generator, num_users: np.ndarray, gain_SM: np.ndarray, published: dict[str, str] | None = None
) -> list[str]:
    """The modes that are published where `gain_SM` is the truth; users differ in their level and in their gains."""
    scenario = np.repeat(np.arange(len(num_users)), num_users)
    level = rng.normal(0.1, 0.15, (len(scenario), 1))
    ndcg = level + rng.normal(0, SD / np.sqrt(2), (len(scenario), len(TEN))) + gain_SM[scenario]
    names = [f"s{at}" for at in range(len(num_users))]
    measured = moments([ndcg[scenario == at] for at in range(len(names))])
    published = published or dict.fromkeys(names, "mode0")
    return [decision.mode for decision in gate.decide(names, TEN, measured, published, TEN[:2])]


def gains(num_scenarios: int, **by_mode: float) -> np.ndarray:
    found = np.zeros((num_scenarios, len(TEN)))
    for mode, gain in by_mode.items():
        found[:, TEN.index(mode)] = gain
    return found


def test_chance_alone_publishes_hardly_ever() -> None:
    """Ten modes that differ in nothing: in at most a draw of twenty any scenario changes its mode (three standard
    errors of 500 draws: .029)."""
    rng = np.random.default_rng(0)
    changed = [set(draw(rng, sizes(rng), gains(8))) != {"mode0"} for _ in range(DRAWS)]
    assert np.mean(changed) <= 0.05 + 0.029


def test_poor_scenarios_follow_a_gain_that_all_share() -> None:
    """.04 everywhere: a fifth of what users differ by, so no scenario of 5 to 50 users could be sure by itself."""
    rng = np.random.default_rng(1)
    followed = [mode == "mode3" for _ in range(DRAWS) for mode in draw(rng, sizes(rng), gains(8, mode3=0.04))[2:]]
    assert np.mean(followed) >= 0.95


def test_a_scenario_that_loses_keeps_its_own() -> None:
    """All gain but the last, of 50 users, where the truth is three standard errors below 0."""
    rng, kept = np.random.default_rng(2), []
    for _ in range(DRAWS):
        truth = gains(8, mode3=0.04)
        truth[-1, 3] = -3 * SD / np.sqrt(50)
        kept.append(draw(rng, np.append(sizes(rng)[:-1], 50), truth)[-1] == "mode0")
    assert np.mean(kept) >= 0.9


def test_two_opposed_scenarios_each_get_their_own_mode() -> None:
    rng = np.random.default_rng(3)
    truth = gains(2)
    truth[0, 3] = truth[1, 4] = 0.06
    truth[0, 4] = truth[1, 3] = -0.06
    assert np.mean([draw(rng, np.array([600, 600]), truth) == ["mode3", "mode4"] for _ in range(DRAWS)]) >= 0.95


def test_an_incumbent_that_went_bad_gives_way_everywhere() -> None:
    rng = np.random.default_rng(4)
    published = {f"s{at}": "mode5" for at in range(8)}
    replaced = [mode != "mode5" for _ in range(50) for mode in draw(rng, sizes(rng), gains(8, mode5=-0.06), published)]
    assert np.mean(replaced) >= 0.95


def test_decisions_do_not_flap_from_night_to_night() -> None:
    """Thirty nights with users drawn anew each night, which is more change than a night brings."""
    rng, changes = np.random.default_rng(5), []
    for _ in range(10):
        num_users, before = sizes(rng), ["mode0"] * 8
        for night in range(30):
            now = draw(rng, num_users, gains(8, mode3=0.04), {f"s{at}": mode for at, mode in enumerate(before)})
            changes += [old != new for old, new in zip(before, now, strict=True)] if night else []
            before = now
    assert np.mean(changes) <= 0.05


def test_a_mode_with_the_lists_of_another_does_not_exist() -> None:
    """`content` of a catalogue without contents: its lists are those of `popular`, whatever it is called."""
    modes, simple = ("ranker", "content", "popular"), ("content", "popular")
    ndcg = users(400, (0.05, 0.1, 0.1), 1)
    ndcg[:, 1] = ndcg[:, 2]
    measured = moments([ndcg])
    assert gate.same_as_another(modes, measured, simple) == {"content"}
    for published in ({}, {"s0": "content"}):
        assert [d.mode for d in gate.decide(["s0"], modes, measured, published, simple)] == ["popular"]


def test_of_two_gains_the_surer_one_counts() -> None:
    """`popular` gains .1 for each user, `ranker` .11 on the mean, all of it by 40 of 800 users: sure as well, but less.
    With ten modes, the one with the largest mean has it by chance more often than the one with the highest bound."""
    modes = ("ranker", "linear", "popular")
    ndcg = users(800, (0.02, 0.02, 0.12), 1)
    ndcg[:40, 0] += 2.2
    (found,) = gate.decide(["s0"], modes, moments([ndcg]), {"s0": "linear"}, ("popular",))
    assert (found.mode, found.challenger) == ("popular", "popular") and "popular replaces linear: " in found.reason
    alone = ("ranker", "linear")
    (found,) = gate.decide(["s0"], alone, moments([ndcg[:, :2]]), {"s0": "linear"}, ("linear",))
    assert found.mode == "ranker"


def test_a_bad_incumbent_falls_back_although_another_challenger_is_unsure() -> None:
    """`popular` is surely better than the incumbent; `ranker` is a little better still on the mean, by two users."""
    modes = ("ranker", "linear", "popular")
    ndcg = users(800, (0.02, 0.02, 0.12), 1)
    ndcg[:2, 0] += 44.0
    (found,) = gate.decide(["s0"], modes, moments([ndcg]), {"s0": "linear"}, ("popular",))
    assert (found.mode, found.challenger) == ("popular", "popular") and "popular replaces linear" in found.reason


def test_the_only_mode_stays() -> None:
    modes, simple = ("content", "popular"), ("content", "popular")
    ndcg = np.repeat(users(400, (0.1,), 1), 2, axis=1)
    (found,) = gate.decide(["s0"], modes, moments([ndcg]), {}, simple)
    assert (found.mode, found.gain) == ("popular", 0.0) and "popular stays" in found.reason
