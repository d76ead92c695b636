"""The cells of a matrix (rows x items) that have a value: sorted keys row * I + item, and arrays of values beside them.

So statistics of scenarios take memory for what happened there, not for scenarios x items.
Shapes: C cells, n wanted ones, I items.
"""

import numpy as np

from recspark.arrays import Array


def key_of(row: Array, item: Array, num_items: int) -> Array:
    """The keys of pairs, int64 (n,)."""
    return np.asarray(row, dtype=np.int64) * num_items + item


def place_of(cells: Array, keys: Array) -> Array:
    """Where each key (n,) stands in `cells` (C,), int64; -1: that cell has no value.

    >>> place_of(np.array([3, 7]), np.array([7, 5, 9]))
    array([ 1, -1, -1])
    """
    if not len(cells):
        return np.full(len(keys), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(cells, keys), len(cells) - 1)
    return np.where(cells[at] == keys, at, -1)


def values_at(values: Array, place: Array, empty: float) -> Array:
    """`values` (..., C) at places (n,), and `empty` where there is none: (..., n) of the values' dtype."""
    if not values.shape[-1]:
        return np.full((*values.shape[:-1], len(place)), empty, dtype=values.dtype)
    return np.where(place >= 0, values[..., place], np.array(empty, dtype=values.dtype))
