"""EASE: the linear item-to-item model (Steck 2019, Embarrassingly Shallow Autoencoders for Sparse Data): in closed form
for a small catalogue, item by item over its nearest neighbours for a large one.

The weights of item j are a ridge regression of its column of X on all others. For a large catalogue the regression of
each item sees only the `neighbours` items that say most about it, of those that share a user with it (after Ning and
Karypis 2011, SLIM, section III-D). If all items share users and all are neighbours, it is EASE.
Shapes: U users, I items. Memory: closed form about 20 I^2 bytes; else 12 bytes an entry of the Gram matrix and
12 x I x neighbours.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits

from recspark.arrays import Array

ROWS_A_BLOCK = 256
# The closed form costs I^3: 15 s on two cores at this size. LAPACK of some builds of OpenBLAS dies above 18,000 items.
CLOSED_FORM_ITEMS = 6_000
NEIGHBOURS = 250  # of an item in a catalogue of 100,000: see `num_neighbours`
PAIRS = 1 << 21  # of a row and an item of its user's history, at once: about 100 MB
SPARSE = ("data", "indices", "indptr")


def gram_blocks(history_UI: sp.csr_matrix, rows: int = ROWS_A_BLOCK) -> Iterator[tuple[int, sp.csr_matrix]]:
    """X^T X of some users in strips of `rows` items: (strip number, sparse (<= rows, I)), empty strips left out.

    The strips of all users are the sum of those of some users and of the others. Memory: X and one strip.
    """
    history_IU = history_UI.T.tocsr()
    for strip in range(-(-history_UI.shape[1] // rows)):
        part = history_IU[strip * rows : (strip + 1) * rows]
        if part.nnz:
            yield strip, (part @ history_UI).tocsr()


def assemble(strips: Iterable[tuple[int, sp.csr_matrix]], num_items: int, rows: int = ROWS_A_BLOCK) -> sp.csr_matrix:
    """Finished strips, each number once, as one Gram matrix, float64 (I, I) with sorted columns."""
    found = dict(strips)
    sizes = [min(rows, num_items - low) for low in range(0, num_items, rows)]
    parts = [found.get(strip, sp.csr_matrix((size, num_items))) for strip, size in enumerate(sizes)]
    gram_II = sp.vstack(parts, format="csr", dtype=np.float64)
    gram_II.sort_indices()
    return gram_II


def fit(
    gram_II: sp.csr_matrix, l2: float, closed_form_items: int = CLOSED_FORM_ITEMS, neighbours: int | None = None
) -> Array | sp.csr_matrix:
    """The weights B of a Gram matrix float64 (I, I), dense up to `closed_form_items` items with an event, else sparse.

    Returns: float32 (I, I); B[i, j] is what item i of a history adds to the score of item j. Items without any event
    have weights 0 and cost nothing.
    """
    active = np.flatnonzero(gram_II.diagonal())
    if len(active) > closed_form_items:
        return nearest(gram_II, l2, neighbours or num_neighbours(len(active)))
    weights_II = np.zeros(gram_II.shape, dtype=np.float32)
    if len(active):
        weights_II[np.ix_(active, active)] = closed_form(gram_II[active][:, active].toarray(), l2)
    return weights_II


def num_neighbours(num_items: int) -> int:
    """NEIGHBOURS for 100,000 items, more for fewer, so that solving all systems costs the same; never under half."""
    return max(NEIGHBOURS // 2, round(NEIGHBOURS * float(np.cbrt(100_000 / num_items))))


def closed_form(gram_II: Array, l2: float) -> Array:
    """B = -P / diag(P) with P = (G + l2 I)^-1 and a zero diagonal, float64 (I, I); `gram_II` is overwritten."""
    inverse = _inverse(gram_II, l2)
    inverse /= -inverse.diagonal()  # the negation is a copy, so nothing overlaps
    np.fill_diagonal(inverse, 0.0)
    return inverse


def nearest(gram_II: sp.csr_matrix, l2: float, neighbours: int) -> sp.csr_matrix:
    """B float32 (I, I), each column over the `neighbours` items that alone explain most of it: G_ij^2 / (G_ii + l2).

    Costs at most neighbours^3 an item, and the rows of its neighbours; on all cores of this machine.
    """
    num_items = gram_II.shape[0]
    of_strip = partial(_nearest_strip, gram_II, gram_II.diagonal(), l2, neighbours)
    with threadpool_limits(1), ThreadPoolExecutor(_cores()) as pool:  # small systems: one each, not all cores on one
        strips = list(pool.map(of_strip, range(0, num_items, ROWS_A_BLOCK)))
    columns_II = sp.vstack(strips, format="csr")  # row j: the weights of all items on item j
    return columns_II.T.tocsr()


def _nearest_strip(gram_II: sp.csr_matrix, size_I: Array, l2: float, neighbours: int, low: int) -> sp.csr_matrix:
    """The weights of ROWS_A_BLOCK items from `low`, one row each."""
    strip = gram_II[low : low + ROWS_A_BLOCK]
    indices, data = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.float32)]
    for row in range(strip.shape[0]):
        entries = slice(strip.indptr[row], strip.indptr[row + 1])
        item, together = strip.indices[entries], strip.data[entries]
        others = (item != low + row) & (together != 0)
        item, together = item[others], together[others]
        if len(item) > neighbours:
            explained = together**2 / (size_I[item] + l2)
            best = np.sort(np.argpartition(-explained, neighbours)[:neighbours])
            item, together = item[best], together[best]
        indices.append(item)
        if len(item):
            among = gram_II[item][:, item].toarray()
            among[np.diag_indices(len(item))] += l2
            data.append(np.linalg.solve(among, together).astype(np.float32))
    ends = np.cumsum([len(part) for part in indices])  # the first part is empty: row 0 starts at 0
    shape = (strip.shape[0], gram_II.shape[0])
    return sp.csr_matrix((np.concatenate(data), np.concatenate(indices), ends), shape=shape)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _inverse(gram: Array, l2: float) -> Array:
    """(gram + l2 I)^-1 by Cholesky, half the work of a general inverse; `gram` is overwritten."""
    gram[np.diag_indices(len(gram))] += l2
    # The matrix is symmetric: its transpose is the Fortran order that LAPACK overwrites without a copy.
    factor, info = lapack.dpotrf(gram.T, lower=True, clean=False, overwrite_a=True)
    assert info == 0, f"Gram matrix + {l2} is not positive definite (LAPACK {info})"
    lower, info = lapack.dpotri(factor, lower=True, overwrite_c=True)
    assert info == 0, f"dpotri failed (LAPACK {info})"
    for low in range(0, len(lower), ROWS_A_BLOCK):  # LAPACK filled the lower triangle only
        strip = slice(low, low + ROWS_A_BLOCK)
        lower[strip, strip] = np.tril(lower[strip, strip]) + np.tril(lower[strip, strip], -1).T
        lower[strip, low + ROWS_A_BLOCK :] = lower[low + ROWS_A_BLOCK :, strip].T
    return np.asarray(lower)


def scores(history_UI: sp.csr_matrix, weights_II: Array | sp.csr_matrix) -> Array:
    """float32 (U, I): the sum of the weights of the user's items; zeros (not scored) for a user without history."""
    found = history_UI @ weights_II
    return np.asarray(found.toarray() if sp.issparse(found) else found, dtype=np.float32)


def between(weights_II: Array | sp.csr_matrix, history: Array, items: Array) -> Array:
    """The weights of the items (h,) of a history on `items` (m,), float32 (h, m)."""
    if isinstance(weights_II, np.ndarray):
        return np.asarray(weights_II[np.ix_(history, items)])
    return np.asarray(weights_II[history][:, items].toarray())


def memories(history_UI: sp.csr_matrix, weights_II: Array | sp.csr_matrix, user_pos: Array, item_idx: Array) -> Array:
    """How much each row's item is wanted by a shorter, a longer and the strongest memory of its user.

    `history_UI`: decayed positives, 2^(-age / half-life). `user_pos`, `item_idx` (n,): rows. The columns: the sum of
    the weights with a quarter of the half-life, the sum without decay, the largest weight of one of the user's items.
    Memory: PAIRS (row, item of the history) at a time.

    Returns: float32 (n, 3), NaN for a user without history. A row's numbers depend on the row alone.
    """
    out = np.full((len(user_pos), 3), np.nan, dtype=np.float32)
    num_known = np.diff(history_UI.indptr)[user_pos]
    rows = np.flatnonzero(num_known)
    ends = np.cumsum(num_known[rows])
    low = 0
    while low < len(rows):
        done = ends[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(ends, done + PAIRS, side="right")))
        part, starts = rows[low:high], np.append(0, ends[low : high - 1] - done)
        row = np.repeat(np.arange(len(part)), num_known[part])
        at = history_UI.indptr[user_pos[part]][row] + np.arange(len(row)) - starts[row]
        weight = np.asarray(weights_II[history_UI.indices[at], item_idx[part][row]], dtype=np.float64).ravel()
        out[part, 0] = np.add.reduceat(weight * history_UI.data[at].astype(np.float64) ** 4, starts)
        out[part, 1] = np.add.reduceat(weight, starts)
        out[part, 2] = np.maximum.reduceat(weight, starts)
        low = high
    return out


def to_arrays(weights_II: Array | sp.csr_matrix) -> dict[str, Array]:
    """Arrays of a model folder."""
    if isinstance(weights_II, np.ndarray):
        return {"linear": weights_II}
    return {f"linear_{part}": getattr(weights_II, part) for part in SPARSE}


def from_arrays(arrays: Mapping[str, Array], num_items: int) -> Array | sp.csr_matrix | None:
    """The inverse of `to_arrays`, nothing copied; None without weights."""
    if "linear_data" not in arrays:
        return arrays.get("linear")
    parts = tuple(arrays[f"linear_{part}"] for part in SPARSE)
    return sp.csr_matrix(parts, shape=(num_items, num_items), copy=False)
