"""The mean of what several rankers say of a row, each in units of its own spread within a list.

Nothing is fitted: models that err differently, and are about as good, are better together in equal parts. Lists' own
spreads are not used: a row's score must not depend on which other rows are scored with it.
"""

from collections.abc import Sequence

import numpy as np

from recspark.arrays import Array

NONE = 1e-12  # of spread: a model that says the same of all rows adds nothing


def spread(lists: Array, scores: Array) -> float:
    """Standard deviation of scores (n,) around the mean of their list; equal rows of `lists` (n, m) int are a list."""
    _, list_idx, sizes = np.unique(lists, axis=0, return_inverse=True, return_counts=True)
    list_idx = list_idx.ravel()
    around = scores - (np.bincount(list_idx, scores) / sizes)[list_idx]
    free = len(scores) - len(sizes)  # each list's mean has used up one
    return float(np.sqrt(np.square(around).sum() / free)) if free else 0.0


def blend(scores: Sequence[Array], spreads: Sequence[float]) -> Array:
    """float64 (n,) from every model's scores (n,): logits, or anything else that a list is ordered by."""
    return np.mean([score / max(width, NONE) for score, width in zip(scores, spreads, strict=True)], axis=0)
