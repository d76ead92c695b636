"""What users had, as sparse matrices: the input of every retriever, from flat histories with offsets.

Shapes: U users, E events, I items; user u owns events offsets[u]:offsets[u + 1].
"""

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.histories import Histories
from recspark.models.retrievers.popular import decay

LEVELS = 1024
STRONGEST_CELLS = 1 << 25  # 128 MB of float32 at once
EPSILON = 1e-9  # weights that cancel in decimals (0.1 + 0.2 - 0.3) must cancel here


def seen(offsets: Array, item_idx: Array, num_items: int) -> sp.csr_matrix:
    """(U, I) with an entry for every item that the user had any event with; sorted, no duplicates."""
    matrix = _sum_events(np.ones(len(item_idx)), offsets, item_idx, num_items)
    matrix.data[:] = 1.0
    return matrix.astype(np.float32)


def positives(offsets: Array, item_idx: Array, weight: Array, num_items: int) -> sp.csr_matrix:
    """Binary float32 (U, I): items whose event weights sum to more than 0; a purchase that was returned is none."""
    net = _sum_events(weight.astype(np.float64), offsets, item_idx, num_items)
    net.data = np.where(net.data > EPSILON, 1.0, 0.0)
    net.eliminate_zeros()
    return net.astype(np.float32)


def recent(
    offsets: Array,
    item_idx: Array,
    weight: Array,
    time: Array,
    num_items: int,
    as_of_days: float,
    half_life_days: float,
) -> sp.csr_matrix:
    """`positives` faded by the age of the last event with the item, float32 (U, I): 1 now, a half after one half-life.

    Whole multiples of 1 / LEVELS, so that sums of products are exact in any order; never less than one of them.
    """
    matrix = positives(offsets, item_idx, weight, num_items)
    age = as_of_days - last_times(offsets, item_idx, time, matrix)
    matrix.data = (np.maximum(np.rint(decay(age, half_life_days) * LEVELS), 1) / LEVELS).astype(np.float32)
    return matrix


def faded(histories: Histories, num_items: int, half_life_days: float) -> sp.csr_matrix:
    """Positives float32 (U, I), each faded by the age of its last event against the user's newest event."""
    h = histories
    matrix = positives(h.offsets, h.item_idx, h.weight, num_items)
    if np.isinf(half_life_days):
        return matrix
    last = last_times(h.offsets, h.item_idx, h.time, matrix)
    newest = np.full(matrix.shape[0], -np.inf)
    owner = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    np.maximum.at(newest, owner, np.nan_to_num(last, nan=-np.inf))
    age = np.nan_to_num(newest[owner] - last, posinf=0.0, neginf=0.0)
    matrix.data *= decay(age, half_life_days).astype(np.float32)
    return matrix


def strongest(history_UI: sp.csr_matrix, weights_II: Array | sp.csr_matrix) -> Array:
    """float32 (U, J): for each column the largest of weight x affinity over the user's items, where a product would add
    them up; zeros for a user without any. `weights_II` (I, J) dense or sparse; dense in chunks of users only."""
    out = np.zeros((history_UI.shape[0], weights_II.shape[1]), dtype=np.float32)
    counts = np.diff(history_UI.indptr)
    room = max(1, STRONGEST_CELLS // max(weights_II.shape[1], 1))
    owners = np.flatnonzero(counts)
    low = 0
    while low < len(owners):
        fit = int(np.searchsorted(np.cumsum(counts[owners[low:]]), room, side="right"))
        users = owners[low : low + max(fit, 1)]
        part = history_UI[users]
        rows = weights_II[part.indices]
        rows = rows.toarray() if sp.issparse(rows) else rows
        out[users] = np.maximum.reduceat(rows * part.data[:, None], part.indptr[:-1], axis=0)
        low += len(users)
    return out


def last_times(offsets: Array, item_idx: Array, time: Array, matrix_UI: sp.csr_matrix) -> Array:
    """When the user last had an event with the item, for each entry of `matrix_UI` in its order, float64 (nnz,).

    Events must be sorted by time within a user; every entry must have an event.
    """
    num_items = matrix_UI.shape[1]
    keys = _owner(offsets) * num_items + item_idx
    entries = _owner(matrix_UI.indptr) * num_items + matrix_UI.indices
    order = np.argsort(keys, kind="stable")  # within a key the last one is the newest
    return time[order[np.searchsorted(keys[order], entries, side="right") - 1]]


def _owner(offsets: Array) -> Array:
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def _sum_events(values: Array, offsets: Array, item_idx: Array, num_items: int) -> sp.csr_matrix:
    matrix = sp.csr_matrix((values, item_idx, offsets), shape=(len(offsets) - 1, num_items), copy=True)
    matrix.sum_duplicates()
    return matrix
