"""Rankers in 8 bits: a model folder of a quarter of the size, and what it costs.

Matrices that recspark/models/int8.py does not run in integers are rounded after training to whole multiples of a step,
one step for each output unit (an embedding row, a column of a tower), and read back as float32. Biases, norms and
quantiles stay as they are.
"""

from collections.abc import Mapping

import numpy as np

from recspark.arrays import Array
from recspark.metrics import auc

STEP = ".step"  # after the name of a matrix: its steps
LEVELS = 127


def pack(weights: Mapping[str, Array]) -> dict[str, Array]:
    """float32 matrices as int8 with their steps beside them, anything else as it is."""
    packed: dict[str, Array] = {}
    for name, weight in weights.items():
        if "weight" not in name.rsplit(".", 1)[-1] or weight.ndim < 2 or weight.dtype != np.float32:
            packed[name] = weight
            continue
        inputs = -2 if weight.ndim == 3 else -1  # towers are (G, X, H), linear layers (H, X), embeddings (rows, D)
        step = np.abs(weight).max(axis=inputs, keepdims=True) / LEVELS
        packed[name] = np.rint(weight / np.maximum(step, np.finfo(np.float32).tiny)).astype(np.int8)
        packed[name + STEP] = step.astype(np.float32)
    return packed


def unpack(packed: Mapping[str, Array]) -> dict[str, Array]:
    """float32 again; arrays that were not packed stay as they are."""
    return {
        name: array.astype(np.float32) * packed[name + STEP] if name + STEP in packed else array
        for name, array in packed.items()
        if not name.endswith(STEP)
    }


def cost(labels: Array, lists: Array, exact: Array, rounded: Array, k: int = 10) -> dict[str, float]:
    """What rounding changes: `auc_loss` over all rows, and `top_overlap`, the mean share of a list's best k that stay.

    `labels`, `exact`, `rounded` (n,): 0 or 1, scores before and after; `lists` (n, m) int: equal rows are one list. A
    list of at most k rows has an overlap of 1.
    """
    _, list_idx, sizes = np.unique(lists, axis=0, return_inverse=True, return_counts=True)
    list_idx = list_idx.ravel()
    both = _best(list_idx, exact, k) & _best(list_idx, rounded, k)
    overlap = np.bincount(list_idx, both) / np.minimum(sizes, k)
    return {"auc_loss": auc(labels, exact) - auc(labels, rounded), "top_overlap": float(overlap.mean())}


def _best(list_idx: Array, scores: Array, k: int) -> Array:
    """bool (n,): rows among the k best of their list; ties by order of the rows."""
    order = np.lexsort((-scores, list_idx))
    starts = np.cumsum(np.bincount(list_idx)) - np.bincount(list_idx)
    best = np.empty(len(order), dtype=bool)
    best[order] = np.arange(len(order)) - starts[list_idx[order]] < k
    return best
