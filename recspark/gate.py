"""The gate: which mode orders a scenario's lists, from the gain of each mode for users of the newest closed windows.

Gain is the NDCG of a mode minus the NDCG of the scenario's incumbent, per list; the gains of scenarios are shrunk
towards each other. The best of several modes looks better than it is, so its bounds are those that hold for all modes
at once. It is published in a scenario on one of two kinds of evidence:

1. the scenario's own: the lower 99 % bound of the shrunk gain of its own challenger is above 0;
2. that of all: over the users of all scenarios the mean gain of the challenger that is best there is surely above 0
   (lower 95 % bound), and the scenario's posterior probability of a gain is at least .8.

Neither counts where the scenario's own users say that the challenger is worse: a one-sided test at 95 % of their gain
as it is, without shrinkage.

So a scenario of few users, which can never be sure by itself, follows the evidence of all, and two opposed scenarios
each follow their own. An incumbent that no challenger replaces gives way to the best simple mode if that is surely
better. A mode whose lists are those of another does not exist: nothing tells them apart.
Shapes: S scenarios, M modes.
Reference: Hothorn, Bretz and Westfall 2008, Simultaneous Inference in General Parametric Models, for such bounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from recspark.arrays import Array

LEVEL = 0.95
DRAWS = 20_000  # of the largest gain by chance
OWN_LEVEL = 0.99  # of a scenario's own evidence: every scenario is a test of its own
MIN_PROBABILITY = 0.8  # of a gain, to follow the evidence of all scenarios
PRIOR_USERS = 20.0  # users that the pooled variance counts for in the variance of one scenario
PRIOR_VARIANCE = 0.25  # of one imagined user added to all: two users who happen to agree prove nothing


@dataclass(frozen=True)
class GainMoments:
    """Sums over lists of users who did something: their number `count` (S,), their NDCG by mode `sums` (S, M), and the
    products of their NDCG by two modes `cross` (S, M, M)."""

    count: Array
    sums: Array
    cross: Array


@dataclass(frozen=True)
class Posterior:
    """Shrunk gain. `mean`, `sd` and the 95 % bounds `lower`, `upper` (S,): of each scenario. `pooled`, `pooled_lower`:
    of all scenarios together, the mean over their users. `own_upper` (S,): one-sided 95 % bound of the scenario's own
    users' mean gain without shrinkage, infinite without users. `df`: degrees of freedom of the t distribution behind
    the probability."""

    mean: Array
    sd: Array
    lower: Array
    upper: Array
    own_upper: Array
    pooled: float
    pooled_lower: float
    df: float

    @property
    def probability(self) -> Array:
        """(S,) that the gain is above 0."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(special.stdtr(self.df, self.mean / self.sd))


@dataclass(frozen=True)
class Decision:
    """The mode that orders a scenario's lists, and the gain of its best challenger over the incumbent."""

    scenario: str
    mode: str
    incumbent: str
    challenger: str
    gain: float
    lower: float
    upper: float
    num_users: int  # of the scenario: lists that the gain is measured on
    reason: str


def decide(
    scenarios: Sequence[str],
    modes: Sequence[str],
    users: GainMoments,
    published: Mapping[str, str],
    simple: Sequence[str],
) -> list[Decision]:
    """One decision for each scenario.

    `published`: the mode last published in a scenario. If there is none, or it no longer exists, the incumbent is the
    best of the `simple` modes over all users.
    """
    exists = [mode for mode in modes if mode not in same_as_another(modes, users, simple)]
    first = best_simple(exists, modes, users, simple)
    incumbents = [published[s] if published.get(s) in exists else first for s in scenarios]
    at = np.array([modes.index(mode) for mode in incumbents], dtype=np.int64)
    by_chance = largest_by_chance(users, [modes.index(mode) for mode in exists], at)
    all_sure, own_sure = (float(np.quantile(by_chance, (1 + level) / 2)) for level in (LEVEL, OWN_LEVEL))
    gain = {mode: shrink(*_gain(users, modes.index(mode), at), t=all_sure) for mode in exists}
    # By lower bounds: of many modes with nearly the same gain, the one that gained most did so by chance as well.
    of_all = max(exists, key=lambda mode: np.nan_to_num(gain[mode].pooled_lower, nan=-np.inf))
    sure = gain[of_all].pooled_lower > 0
    follows = sure & (gain[of_all].probability >= MIN_PROBABILITY) & (gain[of_all].own_upper >= 0)
    decisions = []
    for s, scenario in enumerate(scenarios):
        others = [mode for mode in exists if mode != incumbents[s]] or exists  # itself, where it is the only one
        own = max(others, key=lambda mode: gain[mode].lower[s])
        found = _decide_one(scenario, incumbents[s], own, gain[own], own_sure, s, int(users.count[s]))
        if found.mode == incumbents[s] and follows[s] and of_all != incumbents[s]:
            found = _follow(found, of_all, gain[of_all], s)
        if found.mode == incumbents[s] != first and gain[first].lower[s] > 0:
            figures = _figures(gain[first], s)
            reason = f"{first} replaces {incumbents[s]}, which is worse than this simple mode: {figures}"
            found = _changed(found, first, gain[first], s, reason)
        decisions.append(found)
    return decisions


def largest_by_chance(users: GainMoments, modes: Sequence[int], incumbent_S: Array) -> Array:
    """Draws of the largest gain of the `modes`, in standard errors, where all true gains are 0: float64 (DRAWS,).

    The gains are drawn with the correlation that those of the users have, within scenarios. Its quantile is the factor
    of bounds that hold for all modes at once: modes that are nearly the same cost little.
    """
    rng = np.random.default_rng(0)
    s, m, cross = np.arange(len(incumbent_S)), np.asarray(modes), users.cross
    with_incumbent = cross[s[:, None], m, incumbent_S[:, None]]
    own = cross[s, incumbent_S, incumbent_S][:, None, None]
    products = cross[:, m[:, None], m] - with_incumbent[:, :, None] - with_incumbent[:, None, :] + own
    sums = users.sums[:, m] - users.sums[s, incumbent_S][:, None]
    count = np.maximum(users.count, 1)[:, None, None]
    covariance = (products - sums[:, :, None] * sums[:, None, :] / count).sum(axis=0)
    variance = np.diag(covariance)
    varies = variance > 1e-12 * max(variance.max(initial=0.0), 1e-300)  # the incumbent itself gains nothing
    scale = np.sqrt(variance[varies])
    correlation = covariance[np.ix_(varies, varies)] / np.outer(scale, scale) if varies.any() else np.ones((1, 1))
    values, vectors = np.linalg.eigh(correlation)
    draws = rng.standard_normal((DRAWS, len(values))) * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    df = max(float(users.count.sum()) - 1, 1.0)
    return np.asarray(draws.max(axis=1) / np.sqrt(rng.chisquare(df, DRAWS) / df))


def same_as_another(modes: Sequence[str], users: GainMoments, simple: Sequence[str]) -> set[str]:
    """The modes whose NDCG is that of an earlier mode for every user, as a content retriever's where no item has a
    content; simple modes count as earlier, and of them the last, popularity, as the first."""
    order = [*reversed(simple), *(mode for mode in modes if mode not in simple)]
    cross = users.cross.sum(axis=0)
    found: set[str] = set()
    for n, mode in enumerate(order):
        for other in order[:n]:
            i, j = modes.index(mode), modes.index(other)
            difference = cross[i, i] - 2 * cross[i, j] + cross[j, j]  # sum of squares
            if other not in found and cross[j, j] > 0 and difference <= 1e-9 * cross[j, j]:
                found.add(mode)
                break
    return found


def name_negative_transfer(
    decisions: Sequence[Decision],
    modes: Sequence[str],
    users: GainMoments,
    alone: str,
    transferring: Sequence[str],
) -> list[Decision]:
    """The same decisions, with every transferring mode that is surely worse than `alone` named in the reason.

    Surely worse: the upper 95 % bound of its shrunk gain over `alone` is below zero. `decisions`: one for each
    scenario, in order.
    """
    against = np.full(len(decisions), modes.index(alone))
    reasons = [decision.reason for decision in decisions]
    for mode in transferring:
        found = shrink(*_gain(users, modes.index(mode), against))
        for at in np.flatnonzero(found.upper < 0):
            bounds = f"{-found.upper[at]:.4f} to {-found.lower[at]:.4f}"
            reasons[at] += f"; negative transfer: {mode} is worse than {alone} by {-found.mean[at]:.4f} ({bounds})"
    return [replace(decision, reason=reason) for decision, reason in zip(decisions, reasons, strict=True)]


def best_simple(exists: Sequence[str], modes: Sequence[str], users: GainMoments, simple: Sequence[str]) -> str:
    """The existing simple mode with the highest mean over all users; the first of them on a tie or without any user."""
    totals = users.sums.sum(axis=0)
    return max((mode for mode in simple if mode in exists), key=lambda mode: totals[modes.index(mode)])


def _decide_one(
    scenario: str, incumbent: str, challenger: str, found: Posterior, sure: float, at: int, count: int
) -> Decision:
    """By the scenario's own evidence: the challenger's gain over `count` users, and the number of standard errors that
    it must exceed."""
    figures, mode = f"{_figures(found, at)}, {count} users here", incumbent
    if not np.isfinite(found.mean[at]):
        reason = f"{incumbent} stays: no user to measure a gain on in the closed windows"
    elif found.mean[at] <= 0:
        reason = f"{incumbent} stays: no mode gained; {challenger}: {figures}"
    elif found.own_upper[at] < 0:
        reason = f"{incumbent} stays: {challenger} is worse for the users here; {figures}"
    elif found.mean[at] - sure * found.sd[at] > 0:
        mode, reason = challenger, f"{challenger} replaces {incumbent}: {figures}"
    else:
        reason = f"{incumbent} stays: the gain of {challenger} is not surely above 0: {figures}"
    gain, lower, upper = (float(values[at]) for values in (found.mean, found.lower, found.upper))
    return Decision(scenario, mode, incumbent, challenger, gain, lower, upper, count, reason)


def _follow(kept: Decision, of_all: str, followed: Posterior, at: int) -> Decision:
    """The decision of a scenario that follows the evidence of all."""
    reason = (
        f"{of_all} replaces {kept.incumbent}, as in all scenarios together (gain {followed.pooled:+.4f}), and users "
        f"here do not do worse with it: {_figures(followed, at)}, {kept.num_users} users here"
    )
    return _changed(kept, of_all, followed, at, reason)


def _figures(found: Posterior, at: int) -> str:
    return f"shrunk gain {found.mean[at]:+.4f} ({found.lower[at]:+.4f} to {found.upper[at]:+.4f})"


def _changed(kept: Decision, mode: str, found: Posterior, at: int, reason: str) -> Decision:
    """The decision for a challenger whose gain is `found`."""
    gain, lower, upper = (float(values[at]) for values in (found.mean, found.lower, found.upper))
    return replace(kept, mode=mode, challenger=mode, gain=gain, lower=lower, upper=upper, reason=reason)


def _gain(moments: GainMoments, mode: int, incumbent_S: Array) -> tuple[Array, Array, Array]:
    """Users, mean gain of a mode over each scenario's incumbent, and sum of squares around it, (S,) each; the mean is
    NaN where there are no users."""
    s = np.arange(len(incumbent_S))
    count = moments.count.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (moments.sums[:, mode] - moments.sums[s, incumbent_S]) / count
    cross = moments.cross
    squares = cross[:, mode, mode] - 2 * cross[s, mode, incumbent_S] + cross[s, incumbent_S, incumbent_S]
    return count, mean, np.maximum(squares - count * np.nan_to_num(mean) ** 2, 0.0)


def shrink(count: Array, mean: Array, squares: Array, t: float | None = None) -> Posterior:
    """Empirical Bayes over scenarios: normal means with a normal prior fitted to them.

    `count` users, `mean` gain and `squares` (sum of squared deviations), (S,) each. What scenarios share is the gain in
    standard deviations of their users: a scenario where two modes hardly differ says little about the others, however
    sure it is. The posterior variance includes that of the shared gain. `t`: the standard errors to a bound; None:
    those of one mode. A scenario without users gets the prior; without any user at all everything is NaN.
    Reference: DerSimonian and Laird 1986, Meta-analysis in clinical trials, for the variance between scenarios.
    """
    seen = count > 0
    total = count.sum()
    if not total:
        nothing = np.full(len(count), np.nan)
        return Posterior(nothing, nothing, nothing, nothing, np.full(len(count), np.inf), np.nan, np.nan, 1.0)
    pooled_df = max(total - seen.sum(), 0.0)
    pooled_variance = (squares.sum() + PRIOR_VARIANCE) / (pooled_df + 1)
    n, y = count[seen], mean[seen]
    own_df = n - 1 + PRIOR_USERS
    users_sd = np.full(len(count), np.sqrt(pooled_variance))
    users_sd[seen] = np.sqrt((squares[seen] + PRIOR_USERS * pooled_variance) / own_df)
    standard, v = y / users_sd[seen], 1 / n  # each scenario's mean in standard deviations, and its variance
    between = between_variance(standard, v)
    weight = 1 / (v + between)
    shared = float(weight @ standard / weight.sum())
    shared_part = np.ones(len(count))  # of the shared gain in each scenario's posterior mean
    shared_part[seen] = v / (v + between)
    own = np.zeros(len(count))
    own[seen] = standard
    posterior = users_sd * (shared_part * shared + (1 - shared_part) * own)
    # shared_part * between = v * between / (v + between)
    sd = users_sd * np.sqrt(shared_part * between + shared_part**2 / weight.sum())
    df = float(max(total - 1, 1))
    t = special.stdtrit(df, (1 + LEVEL) / 2) if t is None else t
    own_upper = np.full(len(count), np.inf)
    own_upper[seen] = y + special.stdtrit(own_df, LEVEL) * users_sd[seen] * np.sqrt(v)
    pooled = float(n @ y / total)
    pooled_lower = float(pooled - t * np.sqrt(n @ users_sd[seen] ** 2) / total)
    return Posterior(posterior, sd, posterior - t * sd, posterior + t * sd, own_upper, pooled, pooled_lower, df)


def between_variance(y: Array, v: Array) -> float:
    """DerSimonian-Laird variance between groups with means `y` of variances `v`, (S,) each; 0 where the means differ no
    more than by chance (Cochran's Q at 95 %): an estimate from noise alone would keep poor scenarios from following."""
    weight = 1 / v
    spread = float(weight @ (y - weight @ y / weight.sum()) ** 2)
    df = len(y) - 1
    scale = weight.sum() - (weight @ weight) / weight.sum()
    if scale <= 0 or df == 0 or spread <= special.chdtri(df, 1 - LEVEL):
        return 0.0
    return max(0.0, float((spread - df) / scale))
