"""The K best columns of every row, with each row's own masked columns left out inside the kernel.

Shapes: U users (rows), I items (columns).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

CHUNK_CELLS = 1 << 20  # scores worked on at once: 4 MB of float32, which a cache holds
GROUP = 32  # columns whose maximum counts for all of them
GROUPED = 8  # from so many times k columns on


def top_k(
    scores_UI: np.ndarray,
    k: int,
    seen_UI: sp.csr_matrix | None = None,
    allowed: np.ndarray | None = None,
    tie_rank: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Item numbers (U, k) int32 and their scores (U, k) float32, best first; -1 and -inf where a row has no more items.

    `seen_UI`: stored entries are masked, at the cost of their number. `allowed` bool (I,) or (U, I). Scores of nan or
    -inf are never chosen. Equal scores: the lower `tie_rank` (int (I,), all different; default the column) wins, at the
    cut too. A row's result depends on that row only.
    """
    num_users, num_items = scores_UI.shape
    tie_rank = np.arange(num_items) if tie_rank is None else np.asarray(tie_rank)
    ties = Ties(tie_rank.astype(np.int64), np.argsort(tie_rank))
    idx = np.full((num_users, k), -1, dtype=np.int32)
    best = np.full((num_users, k), -np.inf, dtype=np.float32)
    step, width = max(1, CHUNK_CELLS // max(num_items, 1)), min(k, num_items)
    for low in range(0, num_users if width else 0, step):
        rows = slice(low, min(low + step, num_users))
        masked = _masked(scores_UI, rows, seen_UI, allowed)
        found, value = _select(masked, width, ties)
        idx[rows, :width] = np.where(value > -np.inf, found, -1)
        best[rows, :width] = value
    return idx, best


@dataclass(frozen=True)
class Ties:
    """Which column wins a tie: `rank` int64 (I,), and its inverse `column` (I,)."""

    rank: np.ndarray
    column: np.ndarray


def _masked(
    scores_UI: np.ndarray, rows: slice, seen_UI: sp.csr_matrix | None, allowed: np.ndarray | None
) -> np.ndarray:
    """A copy of some rows, -inf where nothing may be chosen."""
    masked = np.array(scores_UI[rows], dtype=np.float32)
    masked[np.isnan(masked)] = -np.inf
    if allowed is not None:
        masked[~(allowed[rows] if allowed.ndim == 2 else np.broadcast_to(allowed, masked.shape))] = -np.inf
    if seen_UI is not None:
        ends = seen_UI.indptr[rows.start : rows.stop + 1]
        owner = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
        masked[owner, seen_UI.indices[ends[0] : ends[-1]]] = -np.inf
    return masked


def _select(scores: np.ndarray, k: int, ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    """Columns (U, k) of the k best of every row, best first, and their scores.

    The k-th best of the maxima of groups of columns is a bound that k columns at least reach, and not many more: two
    passes over the scores instead of a partition of them.
    """
    num_users, num_items = scores.shape
    if num_items < GROUPED * k:
        return _partition(scores, k, ties)
    num_groups = max(GROUPED * k // 2, num_items // GROUP)
    most = scores[:, : num_items // num_groups * num_groups]  # what bounds the best of most bounds the best of all
    maxima = most.reshape(num_users, -1, num_groups).max(axis=1)
    bound = np.partition(maxima, num_groups - k, axis=1)[:, num_groups - k, None]
    at = np.flatnonzero(scores >= bound)
    row = at // num_items
    size = np.bincount(row, minlength=num_users)
    many = size > GROUPED * k  # columns that hardly differ, or nothing left to choose from
    few = ~many[row]
    at, row, size = (at[few], row[few], np.where(many, 0, size)) if many.any() else (at, row, size)
    place = np.arange(len(at)) - np.repeat(np.cumsum(size) - size, size)
    value = np.full((num_users, max(k, int(size.max(initial=0)))), -np.inf, dtype=np.float32)
    column = np.zeros(value.shape, dtype=np.int64)  # what reaches the bound, side by side
    column[row, place], value[row, place] = at % num_items, scores.ravel()[at]
    columns, values = _ordered(column, value, k, ties)
    if many.any():
        columns[many], values[many] = _partition(scores[many], k, ties)
    return columns, values


def _partition(scores: np.ndarray, k: int, ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    """The same by the k-th best score itself."""
    num_users, num_items = scores.shape
    if k == num_items:
        return _ordered(np.broadcast_to(np.arange(num_items), scores.shape), scores, k, ties)
    cut = np.partition(scores, num_items - k, axis=1)[:, num_items - k, None]
    chosen = scores >= cut
    crowded = np.flatnonzero(np.count_nonzero(chosen, axis=1) > k)  # several at the cut: only the first ones fit
    if len(crowded):
        above = (scores[crowded] > cut[crowded])[:, ties.column]
        equal = (scores[crowded] == cut[crowded])[:, ties.column]
        room = k - np.count_nonzero(above, axis=1)[:, None]
        resolved = np.empty_like(above)
        resolved[:, ties.column] = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))
        chosen[crowded] = resolved
    column = np.nonzero(chosen)[1].reshape(num_users, k)
    return _ordered(column, np.take_along_axis(scores, column, axis=1), k, ties)


def _ordered(column: np.ndarray, value: np.ndarray, k: int, ties: Ties) -> tuple[np.ndarray, np.ndarray]:
    """The k best of some columns (U, M), best first, and their values.

    One sort of whole numbers: the value, above the rank in a tie.
    """
    bits = (value + np.float32(0.0)).view(np.int32).astype(np.int64)  # + 0: there are two zeros, which must tie
    last = len(ties.rank) - 1
    keys = (_in_order(bits) << 32) | (last - ties.rank[column])
    keys.sort(axis=1)
    keys = keys[:, : -k - 1 : -1]
    values = _in_order(keys >> 32).astype(np.int32).view(np.float32)
    return ties.column[last - (keys & 0xFFFFFFFF)], values


def _in_order(bits: np.ndarray) -> np.ndarray:
    """The bits of float32 as whole numbers in the floats' order, those of negative ones turned round; and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
