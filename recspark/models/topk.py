"""The K best columns of every row, where each row's own masked columns are left out inside the kernel.

Scores are handled in tiles that fit into a core's cache: mask the tile, compare it with each row's k-th best score so
far, and keep the few that reach it. Nothing of size rows x columns is sorted or copied, or, for a `Product`, computed.

Shapes: U users (rows), I items (columns), F factors, M kept.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.histories import owners, ranges

ROWS, TILE = 512, 512  # 1 MB of float32
ROOM = 4  # times k: how many candidates of a row are kept before the best are picked out
NO_KEY = np.iinfo(np.int64).min  # below every key


@dataclass(frozen=True)
class Product:
    """Scores that are computed a tile at a time: row u, column i = queries_UF[u] . items_FI[:, i], float32."""

    queries_UF: Array
    items_FI: Array

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.queries_UF), self.items_FI.shape[1]


def top_k(
    scores: Array | Product,
    k: int,
    seen_UI: sp.csr_matrix | None = None,
    allowed: Array | None = None,
    tie_rank: Array | None = None,
    above: float = -np.inf,
) -> tuple[Array, Array]:
    """The best items of each row: item numbers (U, k) int32 and their scores (U, k) float32, best first.

    `scores` (U, I). `seen_UI`: its stored entries are masked; the cost is proportional to their number. `allowed` bool
    (I,) or (U, I). Only scores over `above` are chosen, NaN and -inf never. Of equal scores the lower `tie_rank` wins
    (int (I,), all different; by default the column), also at the cut. A row's result depends on that row only.
    Returns: -1 and -inf where a row has no more items.
    """
    num_users, num_items = scores.shape
    ranks = np.arange(num_items) if tie_rank is None else np.asarray(tie_rank)
    first, column_at = num_items - 1 - ranks.astype(np.int64), np.argsort(ranks)[::-1]
    idx = np.full((num_users, k), -1, dtype=np.int32)
    best = np.full((num_users, k), -np.inf, dtype=np.float32)
    for low in range(0, num_users if num_items else 0, ROWS):
        rows = slice(low, min(low + ROWS, num_users))
        keys = _best_keys(scores, rows, k, Mask(rows, seen_UI, allowed), first, above)
        width, found = keys.shape[1], keys != NO_KEY
        idx[rows, :width] = np.where(found, column_at[np.where(found, keys & 0xFFFFFFFF, 0)], -1)
        best[rows, :width] = np.where(found, _values(keys), -np.inf)
    return idx, best


def top_k_capped(
    scores: Array,
    k: int,
    code: Array,
    most: int,
    seen_UI: sp.csr_matrix | None = None,
    allowed: Array | None = None,
    tie_rank: Array | None = None,
) -> tuple[Array, Array]:
    """`top_k` with at most `most` items of one `code` (int (I,), -1: no limit) in a row: the best of each code.

    Items over the limit are used only where places would stay empty. One pass over all rows; then, over the rows with
    an item over the limit, passes without the other items of full codes: mostly one, and one more where places are
    left. Memory: U x I bool.
    """
    idx, best = top_k(scores, k, seen_UI, allowed, tie_rank)
    free_UI = np.array(np.broadcast_to(True if allowed is None else allowed, scores.shape))

    def best_of(rows: Array, mask: Array) -> tuple[Array, Array]:
        return top_k(scores[rows], k, None if seen_UI is None else seen_UI[rows], mask, tie_rank)

    capped = rows = np.flatnonzero(_beyond(idx, code, most).any(axis=1))
    while len(rows):
        found, beyond = idx[rows], _beyond(idx[rows], code, most)
        row, place = np.nonzero(beyond)
        full = np.zeros((len(rows), int(code.max()) + 2), dtype=bool)  # the last column is that of -1
        full[row, code[found[row, place]]] = True
        free_UI[rows] &= ~full[:, code]
        row, place = np.nonzero(~beyond & (found >= 0))
        free_UI[rows[row], found[row, place]] = True
        idx[rows], best[rows] = best_of(rows, free_UI[rows])
        rows = rows[_beyond(idx[rows], code, most).any(axis=1)]
    short = capped[(idx[capped] < 0).any(axis=1)]
    if len(short):
        rest = np.array(np.broadcast_to(True if allowed is None else allowed, scores.shape)[short])
        row, place = np.nonzero(idx[short] >= 0)
        rest[row, idx[short[row], place]] = False
        more = best_of(short, rest)
        both = [np.concatenate(pair, axis=1) for pair in ((idx[short], more[0]), (best[short], more[1]))]
        first = np.argsort(both[0] < 0, axis=1, kind="stable")[:, :k]
        idx[short], best[short] = (np.take_along_axis(values, first, axis=1) for values in both)
    return idx, best


def num_before(keys: Array) -> Array:
    """The number of earlier entries that equal each one, int64 (n,)."""
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    before = np.empty(len(keys), dtype=np.int64)
    before[np.argsort(group, kind="stable")] = ranges(counts)
    return before


def _beyond(idx: Array, code: Array, most: int) -> Array:
    """bool (U, k): is the place over the limit, that is, are `most` of its code before it in the row?"""
    code_UK = np.append(code, -1).astype(np.int64)[idx]  # an empty place is -1, so it reads the last entry
    keys = np.arange(len(idx))[:, None] * (int(code.max(initial=-1)) + 2) + code_UK + 1
    return np.asarray((code_UK >= 0) & (num_before(keys.ravel()).reshape(idx.shape) >= most))


class Mask:
    """The items that may not be chosen in some rows."""

    def __init__(self, rows: slice, seen_UI: sp.csr_matrix | None, allowed: Array | None) -> None:
        by_item = None if seen_UI is None else seen_UI[rows].tocsc()
        self.seen = None if by_item is None else (by_item.indptr, by_item.indices)
        self.barred = None if allowed is None else ~(allowed[rows] if allowed.ndim == 2 else allowed[None])

    def all(self, columns: slice) -> bool:
        return self.barred is not None and bool(self.barred[:, columns].all())

    def apply(self, tile: Array, columns: slice) -> None:
        if self.barred is not None:
            np.copyto(tile, -np.inf, where=self.barred[:, columns])
        if self.seen is not None:
            ends, row = self.seen[0][columns.start : columns.stop + 1], self.seen[1]
            tile[row[ends[0] : ends[-1]], owners(ends)] = -np.inf


def _best_keys(scores: Array | Product, rows: slice, k: int, mask: Mask, first: Array, above: float) -> Array:
    """Keys (U, up to k) of the best of every row, best first; NO_KEY in empty places."""
    num_users, num_items = rows.stop - rows.start, scores.shape[1]
    room = ROOM * k + min(TILE, num_items)
    keys = np.full((num_users, room), NO_KEY)
    size = np.zeros(num_users, dtype=np.int64)
    bound = np.full(num_users, np.nextafter(np.float32(above), np.float32(np.inf)))
    buffer, due = np.empty(num_users * min(TILE, num_items), np.float32), 2 * TILE
    for left in range(0, num_items, TILE):
        columns = slice(left, min(left + TILE, num_items))
        if mask.all(columns):
            continue
        tile = buffer[: num_users * (columns.stop - left)].reshape(num_users, -1)
        if isinstance(scores, Product):
            np.matmul(scores.queries_UF[rows], scores.items_FI[:, columns], out=tile)
        else:
            tile[:] = scores[rows, columns]
        mask.apply(tile, columns)
        if left == 0 and tile.shape[1] > k:
            tile[np.isnan(tile)] = -np.inf
            bound = np.maximum(bound, np.partition(tile, tile.shape[1] - k, axis=1)[:, tile.shape[1] - k])
        _keep(keys, size, tile, bound, first[columns])
        # Picking costs a sort and raises the bound, so fewer scores pass it: worth it after every doubling.
        if columns.stop >= due or size.max() > room - tile.shape[1]:
            due = max(due, 2 * columns.stop)
            size, bound = _pick(keys, size, k, bound)
    size, _ = _pick(keys, size, k, bound)
    return keys[:, :k]


def _keep(keys: Array, size: Array, tile: Array, bound: Array, first: Array) -> None:
    """Add the scores that reach each row's bound."""
    at = np.flatnonzero(tile >= bound[:, None])
    row = at // tile.shape[1]
    added = np.bincount(row, minlength=len(tile))
    start = np.arange(len(tile)) * keys.shape[1] + size - (np.cumsum(added) - added)
    column = at - row * tile.shape[1]
    keys.ravel()[start[row] + np.arange(len(at))] = _keys(tile.ravel()[at], first[column])
    size += added


def _pick(keys: Array, size: Array, k: int, bound: Array) -> tuple[Array, Array]:
    """Keep the k best of every row, best first. Returns: their number and the new bound."""
    used = keys[:, : max(int(size.max(initial=0)), min(k, keys.shape[1]))]
    used.sort(axis=1)
    width = min(k, used.shape[1])
    best = used[:, : -width - 1 : -1].copy()
    used[:] = NO_KEY
    keys[:, :width] = best
    size = np.minimum(size, k)
    return size, np.where(size == k, np.maximum(bound, _values(best[:, -1])), bound)


def _keys(value: Array, first: Array) -> Array:
    """int64 keys in the order of `value` (float32) and, among equal values, of `first`."""
    bits = (value + np.float32(0.0)).view(np.int32).astype(np.int64)  # + 0: makes -0 and 0 equal
    return np.asarray((_in_order(bits) << 32) | first)


def _values(keys: Array) -> Array:
    return _in_order(keys >> 32).astype(np.int32).view(np.float32)


def _in_order(bits: Array) -> Array:
    """The bits of float32 <-> integers in the same order as the floats: the bits of negative floats are reversed."""
    return np.asarray(bits ^ ((bits >> 31) & 0x7FFFFFFF))
