"""The mean of several rankers' scores, each divided by its spread within a list.

Nothing is fitted: models that are about equally good and make different errors are better together in equal parts. The
spread is that of the training lists, not of the list being scored: a row's score must not depend on the other rows.
"""

from collections.abc import Sequence

import numpy as np

from recspark.arrays import Array

MIN_SPREAD = 1e-12  # a model that gives all rows the same score has none


def spread(lists: Array, scores: Array) -> float:
    """Standard deviation of scores (n,) around the mean of their list; a list: rows with equal `lists` (n, m) int."""
    _, list_idx, sizes = np.unique(lists, axis=0, return_inverse=True, return_counts=True)
    list_idx = list_idx.ravel()
    around = scores - (np.bincount(list_idx, scores) / sizes)[list_idx]
    degrees_of_freedom = len(scores) - len(sizes)  # one less for each list's mean
    return float(np.sqrt(np.square(around).sum() / degrees_of_freedom)) if degrees_of_freedom else 0.0


def blend(scores: Sequence[Array], spreads: Sequence[float]) -> Array:
    """float64 (n,) from every model's scores (n,): logits, or anything else that orders a list."""
    return np.asarray(
        np.mean([score / max(width, MIN_SPREAD) for score, width in zip(scores, spreads, strict=True)], 0)
    )
