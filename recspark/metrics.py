"""Ranking metrics, the one definition of each: NumPy over flat arrays, no loop over rows or lists.

Lists are flat: list l owns rows offsets[l]:offsets[l + 1], in order of rank where the metric is about ranks.
Shapes: n rows, L lists, U users, B bootstrap replicates, V values.
"""

import math

import numpy as np

from recspark.arrays import Array
from recspark.histories import owners, ranges


def offsets_of(list_idx: Array, num_lists: int) -> Array:
    """(L + 1,) int64 offsets of rows that are sorted by list_idx (n,) in 0..L-1; a list may be empty."""
    return np.concatenate(([0], np.cumsum(np.bincount(list_idx, minlength=num_lists))))


def _positions(offsets: Array) -> Array:
    """Place of each row in its list, from 0."""
    return ranges(np.diff(offsets))


def _sums(values: Array, offsets: Array) -> Array:
    """Sum per list. Each list is summed by itself, so that its figure is the same in any block."""
    return np.bincount(owners(offsets), weights=values, minlength=len(offsets) - 1)


def ndcg_at_k(relevance: Array, offsets: Array, num_relevant: Array, k: int) -> Array:
    """(L,) NDCG@k: rows in order of rank, gain relevance / log2(rank + 1), over that of the best possible list.

    `relevance` (n,) 0 or 1. `num_relevant` (L,): all relevant items, found or not; the ideal list has min(k, that many)
    of them on top. NaN where a list has none.

    >>> ndcg_at_k(np.array([0.0, 1.0]), np.array([0, 2]), np.array([1]), 10).round(4)  # 1/log2(3) over 1/log2(2)
    array([0.6309])
    """
    position = _positions(offsets)
    dcg = _sums(np.where(position < k, relevance / np.log2(position + 2.0), 0.0), offsets)
    ideal = np.concatenate(([np.nan], np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))))
    return np.asarray(dcg / ideal[np.minimum(num_relevant, k)])


def hits_at_k(relevance: Array, offsets: Array, num_relevant: Array, k: int) -> Array:
    """(L,) relevant rows among the first k; NaN where a list has no relevant item, as in all that follow."""
    hits = _sums(np.where(_positions(offsets) < k, relevance, 0.0), offsets)
    return np.where(num_relevant > 0, hits, np.nan)


def recall_at_k(relevance: Array, offsets: Array, num_relevant: Array, k: int) -> Array:
    """(L,) share of a list's `num_relevant` (L,) items that are among its first k rows."""
    return np.asarray(hits_at_k(relevance, offsets, num_relevant, k) / np.maximum(num_relevant, 1))


def precision_at_k(relevance: Array, offsets: Array, num_relevant: Array, k: int) -> Array:
    """(L,) share of k places that hold a relevant item; a place that a short list leaves empty holds none."""
    return hits_at_k(relevance, offsets, num_relevant, k) / k


def hit_rate_at_k(relevance: Array, offsets: Array, num_relevant: Array, k: int) -> Array:
    """(L,) 1 where the first k rows hold a relevant item, else 0."""
    return np.minimum(hits_at_k(relevance, offsets, num_relevant, k), 1.0)


def map_at_k(relevance: Array, offsets: Array, num_relevant: Array, k: int) -> Array:
    """(L,) average precision: the sum of precision@rank over the relevant rows among the first k, divided by
    min(k, `num_relevant`), the most there could be."""
    so_far = np.concatenate(([0.0], np.cumsum(relevance)))
    position = _positions(offsets)
    precision = (so_far[1:] - np.repeat(so_far[offsets[:-1]], np.diff(offsets))) / (position + 1.0)
    total = _sums(np.where(position < k, relevance * precision, 0.0), offsets)
    return np.asarray(total / np.where(num_relevant > 0, np.minimum(num_relevant, k), np.nan))


def mrr_at_k(relevance: Array, offsets: Array, num_relevant: Array, k: int) -> Array:
    """(L,) 1 over the rank of the first relevant row, 0 where there is none among the first k."""
    rows = np.flatnonzero(relevance > 0)[::-1]  # a list's first one is assigned last and so stays
    rank = np.full(len(offsets) - 1, np.inf)
    rank[owners(offsets)[rows]] = _positions(offsets)[rows] + 1.0
    return np.where(num_relevant > 0, np.where(rank <= k, 1.0 / rank, 0.0), np.nan)


# The metrics of the first k rows of lists, by name; all have the same arguments.
AT_K = {
    "ndcg": ndcg_at_k,
    "recall": recall_at_k,
    "precision": precision_at_k,
    "hit_rate": hit_rate_at_k,
    "map": map_at_k,
    "mrr": mrr_at_k,
}


def coverage(item_idx: Array, num_items: int) -> float:
    """Share of `num_items` eligible items that are in at least one list; NaN without any eligible item."""
    return len(np.unique(item_idx)) / num_items if num_items else math.nan


def auc(labels: Array, scores: Array, weights: Array | None = None) -> float:
    """Probability that a positive row (n,) scores above a negative one; ties count half; NaN with one class only."""
    values, at = np.unique(scores, return_inverse=True)
    weights = np.ones(len(scores)) if weights is None else weights
    positive = np.bincount(at, weights=weights * labels, minlength=len(values))
    negative = np.bincount(at, weights=weights * (1 - labels), minlength=len(values))
    return auc_of_counts(positive, negative)


def auc_of_counts(positive: Array, negative: Array) -> float:
    """AUC from the weight of positives and negatives at each distinct score, (V,), in ascending order of score."""
    below = np.cumsum(negative) - negative
    pairs = positive.sum() * negative.sum()
    return float(positive @ (below + negative / 2) / pairs) if pairs else math.nan


def score_bins(scores: Array) -> Array:
    """(n,) int64 bins that keep the order of finite scores: sign, exponent and 9 bits of the float32.

    Scores within 1 / 512 of each other may share a bin, and are ties then. So an AUC can be merged from the counts of
    few bins.
    """
    bits = np.ascontiguousarray(scores, dtype=np.float32).view(np.int32).astype(np.int64)
    ordered = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))
    return ordered >> 14


def auc_per_list(labels: Array, scores: Array, offsets: Array) -> Array:
    """(L,) AUC within each list; ties count half; rows in any order within a list; NaN with one class only."""
    list_idx = owners(offsets)
    order = np.lexsort((scores, list_idx))
    owner, ranked = list_idx[order], scores[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (owner[1:] != owner[:-1]) | (ranked[1:] != ranked[:-1])
    run = np.cumsum(first) - 1  # rows of one list with one score
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(order))
    midrank = (starts + ends + 1)[run] / 2 - offsets[owner]  # from 1, within the list
    positives = _sums(labels, offsets)
    negatives = np.diff(offsets) - positives
    ranks = np.bincount(owner, weights=midrank * labels[order], minlength=len(offsets) - 1)
    pairs = positives * negatives
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, (ranks - positives * (positives + 1) / 2) / pairs, np.nan)


def gauc(labels: Array, scores: Array, offsets: Array) -> float:
    """Mean of the lists' AUC weighted by their rows (Zhu et al. 2017); lists with one class only are left out."""
    values = auc_per_list(labels, scores, offsets)
    sizes = np.where(np.isfinite(values), np.diff(offsets), 0)
    return float(np.nansum(values * sizes) / sizes.sum()) if sizes.sum() else math.nan


def hash_users(user_idx: Array, seed: int) -> Array:
    """(U,) uint64: the seed of each user's random draws; the same in any block."""
    salt = _mix(np.array([seed], dtype=np.int64).view(np.uint64))
    return _mix(_mix(user_idx.astype(np.int64).view(np.uint64)) ^ salt)


def poisson_weights(user_hash: Array, num_replicates: int) -> Array:
    """(U, B) Poisson(1) counts, float64: how often each replicate drew a user.

    They depend on the user's hash alone, so a user has the same draws in any partition.
    Reference: Chamandy et al. 2012, Estimating Uncertainty for Massive Data Streams.
    """
    step = np.arange(1, num_replicates + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    uniform = (_mix(user_hash[:, None] + step) >> np.uint64(11)) * 2.0**-53
    steps = np.cumsum([math.exp(-1) / math.factorial(i) for i in range(18)])
    return np.searchsorted(steps, uniform, side="right").astype(np.float64)


def _mix(x: Array) -> Array:
    """The last step of splitmix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def interval(replicates: Array, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the finite replicates (B,); NaN, NaN without any."""
    finite = replicates[np.isfinite(replicates)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
