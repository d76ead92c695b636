"""Ratings as flat arrays, and grouped by user or by item in padded blocks.

Shapes: n ratings, U users, I items; B rows of a block, L ratings of its longest row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

ENTRIES_A_BLOCK = 100_000  # padded ratings in a block; memory: this x the factors of a model


@dataclass(frozen=True)
class Ratings:
    """`user_idx`, `item_idx` int64 (n,), each pair at most once, and the rating `value` float64 (n,)."""

    user_idx: np.ndarray
    item_idx: np.ndarray
    value: np.ndarray
    num_users: int
    num_items: int

    def without(self, rows: np.ndarray) -> "Ratings":
        """The ratings where the mask `rows` (n,) is False."""
        kept = ~rows
        return Ratings(self.user_idx[kept], self.item_idx[kept], self.value[kept], self.num_users, self.num_items)


@dataclass(frozen=True)
class Block:
    """Some rows `row_B` with all their ratings: `at_BL` are positions of ratings, `here_BL` is 1, or 0 for padding."""

    row_B: np.ndarray
    at_BL: np.ndarray
    here_BL: np.ndarray


def blocks(row_idx: np.ndarray, num_rows: int) -> Iterator[Block]:
    """Every row 0..num_rows-1 once, rows of similar length together; a row without ratings has only padding."""
    count = np.bincount(row_idx, minlength=num_rows)
    order = np.argsort(row_idx, kind="stable")
    start = np.cumsum(count) - count
    rows = np.argsort(-count, kind="stable")
    low = 0
    while low < num_rows:
        length = max(int(count[rows[low]]), 1)
        high = min(low + max(1, ENTRIES_A_BLOCK // length), num_rows)
        some = rows[low:high]
        place = np.arange(length)
        here = place < count[some][:, None]
        at = np.where(here, order[np.where(here, start[some][:, None] + place, 0)], 0)
        yield Block(some, at, here.astype(np.float32))
        low = high


def mean_of(row_idx: np.ndarray, value: np.ndarray, num_rows: int, shrinkage: float, towards: float) -> np.ndarray:
    """(num_rows,) means of each row's values and of `shrinkage` further values that are equal to `towards`."""
    count = np.bincount(row_idx, minlength=num_rows)
    return (np.bincount(row_idx, value, num_rows) + shrinkage * towards) / np.maximum(count + shrinkage, 1e-9)
