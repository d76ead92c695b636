"""Which items each user interacted with, as sparse matrices made from flat histories: the input of every retriever.

Shapes: U users, E events, I items; user u owns events offsets[u]:offsets[u + 1].
"""

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.histories import Histories, owners
from recspark.models.retrievers.popular import exponential_decay

LEVELS = 1024  # decayed weights are rounded to whole multiples of 1 / LEVELS
STRONGEST_CELLS = 1 << 25  # 128 MB of float32 at once
EPSILON = 1e-9  # weights that cancel in decimals (0.1 + 0.2 - 0.3) must cancel here


def seen(offsets: Array, item_idx: Array, num_items: int) -> sp.csr_matrix:
    """float32 (U, I): 1 for every item that the user has any event with; entries sorted, no duplicates."""
    matrix = _sum_events(np.ones(len(item_idx)), offsets, item_idx, num_items)
    matrix.data[:] = 1.0
    return matrix.astype(np.float32)


def positives(offsets: Array, item_idx: Array, weight: Array, num_items: int) -> sp.csr_matrix:
    """float32 (U, I): 1 for every item whose event weights add up to more than 0, so not for a returned purchase."""
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
    """`positives` times the exponential decay of the age, at `as_of_days`, of the user's last event with the item.

    Returns: float32 (U, I), whole multiples of 1 / LEVELS, so that sums of products are exact in any order; at least
    one of them.
    """
    matrix = positives(offsets, item_idx, weight, num_items)
    age = as_of_days - last_times(offsets, item_idx, time, matrix)
    matrix.data = (np.maximum(np.rint(exponential_decay(age, half_life_days) * LEVELS), 1) / LEVELS).astype(np.float32)
    return matrix


def decayed_positives(histories: Histories, num_items: int, half_life_days: float) -> sp.csr_matrix:
    """`positives` times the exponential decay of the time from the last event with the item to the user's newest event,
    float32 (U, I)."""
    h = histories
    matrix = positives(h.offsets, h.item_idx, h.weight, num_items)
    if np.isinf(half_life_days):
        return matrix
    last = last_times(h.offsets, h.item_idx, h.time, matrix)
    newest = np.full(matrix.shape[0], -np.inf)
    owner = owners(matrix.indptr)
    np.maximum.at(newest, owner, np.nan_to_num(last, nan=-np.inf))
    age = np.nan_to_num(newest[owner] - last, posinf=0.0, neginf=0.0)
    matrix.data *= exponential_decay(age, half_life_days).astype(np.float32)
    return matrix


def strongest(history_UI: sp.csr_matrix, weights_II: Array | sp.csr_matrix) -> Array:
    """The largest of history weight x item weight over the user's items, where a matrix product would add them up.

    `weights_II`: (I, J), dense or sparse; made dense for a chunk of users only.

    Returns: float32 (U, J), zeros for a user without items.
    """
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
    """Time of the user's last event with the item, for each entry of `matrix_UI` in its order, float64 (nnz,).

    Events must be sorted by time within a user; every entry must have an event.
    """
    num_items = matrix_UI.shape[1]
    keys = owners(offsets) * num_items + item_idx
    entries = owners(matrix_UI.indptr) * num_items + matrix_UI.indices
    order = np.argsort(keys, kind="stable")  # within a key the last one is the newest
    return np.asarray(time[order[np.searchsorted(keys[order], entries, side="right") - 1]])


def places_from_end(owner: Array, num_users: int) -> Array:
    """How many events of the same user follow each event, (E,); `owner` (E,): the user of each, sorted."""
    ends = np.cumsum(np.bincount(owner, minlength=num_users))
    return ends[owner] - 1 - np.arange(len(owner))


def _sum_events(values: Array, offsets: Array, item_idx: Array, num_items: int) -> sp.csr_matrix:
    matrix = sp.csr_matrix((values, item_idx, offsets), shape=(len(offsets) - 1, num_items), copy=True)
    matrix.sum_duplicates()
    return matrix
