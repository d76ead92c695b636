"""Popularity: exponentially decayed counts of each scenario, shrunk towards those of all scenarios together.

Shapes: G scenario groups, I items.
"""

import numpy as np

from recspark.arrays import Array


def exponential_decay(age_days: Array, half_life_days: float) -> Array:
    """The weight of an event of that age, float64: 1 for age 0, 1/2 after one half-life."""
    return np.asarray(np.exp2(-np.asarray(age_days, dtype=np.float64) / half_life_days))


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
