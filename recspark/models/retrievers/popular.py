"""What sells now: exponentially decayed counts, every scenario leaning on all of them together.

Shapes: G scenario groups, I items.
"""

import numpy as np

from recspark.arrays import Array


def decay(age_days: Array, half_life_days: float) -> Array:
    """What an event of that age counts for: 1 now, a half after one half-life."""
    return np.exp2(-np.asarray(age_days, dtype=np.float64) / half_life_days)


def fit(counts_GI: Array, shrinkage: float) -> Array:
    """Popularity float32 (G, I) of decayed net counts: (count + shrinkage * share of all groups) / (total + shrinkage).

    `shrinkage` is how many events the distribution over all groups counts for: a group with few events follows the
    rest, an empty one is the rest. More returns than purchases count as none, so nothing is negative.
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
