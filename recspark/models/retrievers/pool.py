"""Several retrievers' lists as one pool of candidates, and the item of the user's history that explains each of them.

Shapes: L lists (one user in one scenario), k places, R retrievers, n pooled rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array

NO_RETRIEVER = -1  # `best` of a row that no retriever found
NO_ITEM = -1  # `explaining_item` of a row that no item explains


@dataclass(frozen=True)
class Pool:
    """Candidate rows in order of list, then item.

    `ranks`: float32 (n, R) from 1, NaN where that retriever did not find the item. `best`: (n,) the retriever that
    ranked it highest, the first one if several did; NO_RETRIEVER if none found it.
    """

    list_pos: Array
    item_idx: Array
    ranks: Array
    best: Array


def pool(tops: Sequence[Array], num_lists: int, num_items: int) -> Pool:
    """The union of R lists of item numbers, each (L, k), best first, with -1 for an empty place."""
    places = [np.nonzero(top >= 0) for top in tops]
    keys = [row.astype(np.int64) * num_items + top[row, place] for top, (row, place) in zip(tops, places, strict=True)]
    distinct = np.unique(np.concatenate(keys))
    ranks = np.full((len(distinct), len(tops)), np.nan, dtype=np.float32)
    for r, (key, (_, place)) in enumerate(zip(keys, places, strict=True)):
        ranks[np.searchsorted(distinct, key), r] = place + 1
    best = np.argmin(np.where(np.isnan(ranks), np.inf, ranks), axis=1)
    return Pool(distinct // num_items, distinct % num_items, ranks, best)


def append(rows: Pool, list_pos: Array, item_idx: Array) -> Pool:
    """Add rows that no retriever found, and sort all rows again."""
    list_pos, item_idx = np.concatenate((rows.list_pos, list_pos)), np.concatenate((rows.item_idx, item_idx))
    added = len(list_pos) - len(rows.list_pos)
    ranks = np.concatenate((rows.ranks, np.full((added, rows.ranks.shape[1]), np.nan, dtype=np.float32)))
    best = np.concatenate((rows.best, np.full(added, NO_RETRIEVER)))
    order = np.lexsort((item_idx, list_pos))
    return Pool(list_pos[order], item_idx[order], ranks[order], best[order])


def exactly(rows: Pool, list_pos: Array, item_idx: Array, num_items: int) -> Pool:
    """Exactly the given rows (sorted by list and item), with the ranks that they have in the pool."""
    pooled, wanted = (
        lists * num_items + items for lists, items in ((rows.list_pos, rows.item_idx), (list_pos, item_idx))
    )
    at = np.searchsorted(pooled, wanted)
    found = at < len(pooled)
    found[found] = pooled[at[found]] == wanted[found]
    ranks = np.full((len(wanted), rows.ranks.shape[1]), np.nan, dtype=np.float32)
    best = np.full(len(wanted), NO_RETRIEVER)
    ranks[found], best[found] = rows.ranks[at[found]], rows.best[at[found]]
    return Pool(list_pos, item_idx, ranks, best)


def explaining_item(
    history_UI: sp.csr_matrix,
    user_pos: Array,
    item_idx: Array,
    contribution: Callable[[Array, Array], Array],
    tie_rank: Array,
) -> Array:
    """For every (user, item) row, the item of the user's history that contributes most to the score.

    Rows must be in order of `user_pos`. `contribution(history items (h,), items (m,))` -> (h, m) is called once a user;
    if contributions are equal, the item of the lower `tie_rank` is taken.

    Returns: int32 (n,), NO_ITEM for a user without history.
    """
    found = np.full(len(user_pos), NO_ITEM, dtype=np.int32)
    users, starts = np.unique(user_pos, return_index=True)
    ends = np.append(starts, len(user_pos))[1:]
    for user, low, high in zip(users, starts, ends, strict=True):
        known = history_UI.indices[history_UI.indptr[user] : history_UI.indptr[user + 1]]
        if len(known):
            known = known[np.argsort(tie_rank[known])]
            found[low:high] = known[np.argmax(contribution(known, item_idx[low:high]), axis=0)]
    return found
