"""Popularity: exponentially decayed counts of each scenario, shrunk towards those of all scenarios together.

Shapes: G scenario groups, I items, E events, P pairs of a user and an item.
"""

import numpy as np

from recspark.arrays import Array


def exponential_decay(age_days: Array, half_life_days: float) -> Array:
    """The weight of an event of that age, float64: 1 for age 0, 1/2 after one half-life."""
    return np.asarray(np.exp2(-np.asarray(age_days, dtype=np.float64) / half_life_days))


def net_of_pairs(
    weight: Array, time: Array, pair: Array, num_pairs: int, as_of_days: float, half_life_days: float
) -> Array:
    """What each user adds to an item's net count, float64 (P,): the decayed weights of all events, but never more than
    one event of the same user with the largest weight and the newest time. So popularity counts people, and twenty
    thousand events of a robot are one.

    `weight`, `time` in days, `pair` (E,): the events; pair 0..P-1 is a user with an item. Weight 0 is no event.
    """
    decayed = weight * exponential_decay(as_of_days - time, half_life_days)
    largest, newest = np.zeros(num_pairs), np.full(num_pairs, -np.inf)
    np.maximum.at(largest, pair, np.abs(weight))
    counted = weight != 0
    np.maximum.at(newest, pair[counted], time[counted])
    most = largest * exponential_decay(as_of_days - newest, half_life_days)
    return np.clip(np.bincount(pair, decayed, minlength=num_pairs), -most, most)


def fit(counts_GI: Array, shrinkage: float) -> Array:
    """Popularity from decayed net counts: (count + shrinkage * share in all groups) / (total + shrinkage).

    `shrinkage`: the number of events that the shares in all groups count for, so a group with few events is close to
    those shares, and a group without events equals them. A negative count (more returns than purchases) counts as 0.

    Returns: float32 (G, I).
    """
    counts_GI = np.maximum(counts_GI, 0.0)
    total = counts_GI.sum()
    if total == 0:
        return np.zeros(counts_GI.shape, dtype=np.float32)
    share_I = counts_GI.sum(axis=0) / total
    own_G1 = counts_GI.sum(axis=1, keepdims=True)
    weight_G1 = np.where(own_G1 + shrinkage > 0, own_G1 + shrinkage, 1.0)
    popular_GI = (counts_GI + shrinkage * share_I) / weight_G1
    return np.where(own_G1 + shrinkage > 0, popular_GI, share_I).astype(np.float32)
