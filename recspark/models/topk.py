"""The K best columns of every row, with each row's own masked columns left out inside the kernel.

Shapes: U users (rows), I items (columns).
"""

import numpy as np
import scipy.sparse as sp

CHUNK_CELLS = 1 << 22  # scores worked on at once: 16 MB of float32, which bounds the temporaries


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
    by_tie = np.argsort(tie_rank)
    idx = np.full((num_users, k), -1, dtype=np.int32)
    best = np.full((num_users, k), -np.inf, dtype=np.float32)
    step = max(1, CHUNK_CELLS // max(num_items, 1))
    for low in range(0, num_users, step):
        rows = slice(low, min(low + step, num_users))
        masked = _masked(scores_UI, rows, seen_UI, allowed)
        found = _select(masked, min(k, num_items), by_tie)
        value = np.take_along_axis(masked, found, axis=1)
        order = np.lexsort((tie_rank[found], -value), axis=-1)
        found, value = (np.take_along_axis(x, order, axis=1) for x in (found, value))
        idx[rows, : found.shape[1]] = np.where(value > -np.inf, found, -1)
        best[rows, : found.shape[1]] = value
    return idx, best


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


def _select(scores: np.ndarray, k: int, by_tie: np.ndarray) -> np.ndarray:
    """(U, k) columns of the k best of every row, unordered. `by_tie`: columns in the order that breaks ties."""
    num_users, num_items = scores.shape
    if k == num_items:
        return np.broadcast_to(np.arange(num_items), scores.shape)
    cut = np.partition(scores, num_items - k, axis=1)[:, num_items - k, None]  # the k-th best score
    chosen = scores >= cut
    crowded = np.flatnonzero(np.count_nonzero(chosen, axis=1) > k)  # several at the cut: only the first ones fit
    if len(crowded):
        above = (scores[crowded] > cut[crowded])[:, by_tie]
        equal = (scores[crowded] == cut[crowded])[:, by_tie]
        room = k - np.count_nonzero(above, axis=1)[:, None]
        ordered = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))
        resolved = np.empty_like(ordered)
        resolved[:, by_tie] = ordered
        chosen[crowded] = resolved
    return np.nonzero(chosen)[1].reshape(num_users, k)
