"""The gate: which mode orders a scenario's lists, from the gain of each mode for users of the newest closed window.

One rule: a mode replaces the incumbent of a scenario if the lower 95 % bound of its shrunk gain is above zero.
Gain is the NDCG of the mode minus the NDCG of the incumbent, per user. The gains of scenarios are shrunk towards each
other. Modes are chosen on one half of the users and confirmed on the other: the best of several would otherwise look
better than it is.
Shapes: S scenarios, M modes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from recspark.arrays import Array

LEVEL = 0.95
PRIOR_USERS = 20.0  # users that the pooled variance counts for in the variance of one scenario
PRIOR_VARIANCE = 0.25  # of one imagined user added to all: two users who happen to agree prove nothing


@dataclass(frozen=True)
class GainMoments:
    """Sums over one half of the users: their number `count` (S,), their NDCG by mode `sums` (S, M), and the products
    of their NDCG by two modes `cross` (S, M, M)."""

    count: Array
    sums: Array
    cross: Array


@dataclass(frozen=True)
class Posterior:
    """Shrunk gain per scenario, (S,) each: posterior mean with its 95 % bounds."""

    mean: Array
    lower: Array
    upper: Array


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
    num_users: int  # of the scenario, on the confirming half
    reason: str


def decide(
    scenarios: Sequence[str],
    modes: Sequence[str],
    choosing: GainMoments,
    confirming: GainMoments,
    published: Mapping[str, str],
    simple: Sequence[str],
) -> list[Decision]:
    """One decision for each scenario.

    `published`: the mode last published in a scenario. If there is none, or it no longer exists, the incumbent is the
    best of the `simple` modes over all users of the choosing half.
    """
    first = best_simple(modes, choosing, simple)
    incumbents = [published[s] if published.get(s) in modes else first for s in scenarios]
    decisions: dict[int, Decision] = {}
    for incumbent in sorted(set(incumbents)):
        members = [at for at, name in enumerate(incumbents) if name == incumbent]
        challengers = [mode for mode in modes if mode != incumbent]
        chosen = np.stack([shrink(*_gain(choosing, modes, mode, incumbent)).mean for mode in challengers])
        confirmed = [shrink(*_gain(confirming, modes, mode, incumbent)) for mode in challengers]
        for at in members:
            best = int(np.argmax(chosen[:, at]))
            gained = bool(chosen[best, at] > 0)
            count = int(confirming.count[at])
            decisions[at] = _decide_one(scenarios[at], incumbent, challengers[best], gained, confirmed[best], at, count)
    return [decisions[at] for at in range(len(scenarios))]


def name_negative_transfer(
    decisions: Sequence[Decision],
    modes: Sequence[str],
    halves: Sequence[GainMoments],
    alone: str,
    transferring: Sequence[str],
) -> list[Decision]:
    """The same decisions, with every transferring mode that is surely worse than `alone` named in the reason.

    Surely worse: the upper 95 % bound of its shrunk gain over `alone` is below zero. That is measured on all users,
    since nothing is chosen by it. `halves`: both halves of the users; `decisions`: one for each scenario, in order.
    """
    users = GainMoments(*(sum(getattr(half, name) for half in halves) for name in ("count", "sums", "cross")))
    reasons = [decision.reason for decision in decisions]
    for mode in transferring:
        found = shrink(*_gain(users, modes, mode, alone))
        for at in np.flatnonzero(found.upper < 0):
            bounds = f"{-found.upper[at]:.4f} to {-found.lower[at]:.4f}"
            reasons[at] += f"; negative transfer: {mode} is worse than {alone} by {-found.mean[at]:.4f} ({bounds})"
    return [replace(decision, reason=reason) for decision, reason in zip(decisions, reasons, strict=True)]


def best_simple(modes: Sequence[str], choosing: GainMoments, simple: Sequence[str]) -> str:
    """The simple mode with the highest mean over all users; the first of them on a tie or without any user."""
    totals = choosing.sums.sum(axis=0)
    return max(simple, key=lambda mode: totals[modes.index(mode)])


def _decide_one(
    scenario: str, incumbent: str, challenger: str, gained: bool, confirmed: Posterior, at: int, count: int
) -> Decision:
    """`gained`: did the challenger gain on the choosing half; `count`: users of the scenario on the confirming half."""
    gain, lower, upper = float(confirmed.mean[at]), float(confirmed.lower[at]), float(confirmed.upper[at])
    found = f"shrunk gain {gain:+.4f} ({lower:+.4f} to {upper:+.4f}), {count} users here"
    if gained and lower > 0:
        mode, reason = challenger, f"{challenger} replaces {incumbent}: {found}"
    elif not np.isfinite(lower):
        mode, reason = incumbent, f"{incumbent} stays: nobody to measure a gain on in the newest closed window"
    elif not gained:
        mode, reason = incumbent, f"{incumbent} stays: no mode gained on the choosing half; {challenger}: {found}"
    else:
        mode, reason = incumbent, f"{incumbent} stays: the gain of {challenger} is not surely above 0: {found}"
    return Decision(scenario, mode, incumbent, challenger, gain, lower, upper, count, reason)


def _gain(moments: GainMoments, modes: Sequence[str], mode: str, incumbent: str) -> tuple[Array, ...]:
    """Users, mean gain and sum of squares around it, (S,) each; the mean is NaN where there are no users."""
    contrast = np.zeros(len(modes))
    contrast[modes.index(mode)] += 1
    contrast[modes.index(incumbent)] -= 1
    count = moments.count.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = moments.sums @ contrast / count
    squares = np.einsum("i,sij,j->s", contrast, moments.cross, contrast) - count * np.nan_to_num(mean) ** 2
    return count, mean, np.maximum(squares, 0.0)


def shrink(count: Array, mean: Array, squares: Array) -> Posterior:
    """Empirical Bayes over scenarios: normal means with a normal prior fitted to them.

    `count` users, `mean` gain and `squares` (sum of squared deviations), (S,) each. The posterior variance includes
    that of the pooled mean. A scenario without users gets the prior; without any user at all everything is NaN.
    Reference: DerSimonian and Laird 1986, Meta-analysis in clinical trials, for the variance between scenarios.
    """
    seen = count > 0
    total = count.sum()
    if not total:
        return Posterior(*(np.full(len(count), np.nan) for _ in range(3)))
    pooled_df = max(total - seen.sum(), 0.0)
    pooled_variance = (squares.sum() + PRIOR_VARIANCE) / (pooled_df + 1)
    n, y = count[seen], mean[seen]
    v = (squares[seen] + PRIOR_USERS * pooled_variance) / (n - 1 + PRIOR_USERS) / n  # variance of each scenario's mean
    between = between_variance(y, v)
    weight = 1 / (v + between)
    pooled = weight @ y / weight.sum()
    pooled_share = np.ones(len(count))  # of the pooled mean in each scenario's posterior mean
    pooled_share[seen] = v / (v + between)
    own = np.zeros(len(count))
    own[seen] = y
    posterior = pooled_share * pooled + (1 - pooled_share) * own
    # pooled_share * between = v * between / (v + between)
    variance = pooled_share * between + pooled_share**2 / weight.sum()
    half_width = special.stdtrit(max(total - 1, 1), (1 + LEVEL) / 2) * np.sqrt(variance)
    return Posterior(posterior, posterior - half_width, posterior + half_width)


def between_variance(y: Array, v: Array) -> float:
    """DerSimonian-Laird variance between groups with means `y` of variances `v`, (S,) each; never negative."""
    weight = 1 / v
    spread = weight @ (y - weight @ y / weight.sum()) ** 2
    scale = weight.sum() - (weight @ weight) / weight.sum()
    return max(0.0, float((spread - (len(y) - 1)) / scale)) if scale > 0 else 0.0
