"""Features to predict whether a user likes an item, for rows with a list of the items that the user liked before.

They come from the labels of the item, from users who liked the same items, and from the items' content. The user's own
mean is left out: with it the trees rank a user's items worse, and the factors contain it.

Shapes: n rows, I items, D content dimensions, h entries of all rows' histories.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from benchmarks.research.ratings.ratings import Ratings, mean_of
from recspark.histories import owners, ranges

SHRINKAGE = 5.0  # the overall mean counts as much as this many ratings of an item
PAIR_SHRINKAGE = 20.0
TOP = 3  # nearest items of the history
RECENT = 10  # newest items of the history


@dataclass(frozen=True)
class Rows:
    """`user_idx`, `item_idx` (n,); row i's liked items, newest last: `history[offsets[i]:offsets[i + 1]]`."""

    user_idx: np.ndarray
    item_idx: np.ndarray
    history: np.ndarray
    offsets: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """The row (h,) of every history entry."""
        return owners(self.offsets)


def features(known: Ratings, rows: Rows, content_ID: np.ndarray) -> dict[str, np.ndarray]:
    """name -> (n,) float64, NaN: unknown. `known`: labels 0 / 1 of other rows.

    `content_ID`: unit vectors, zeros for an item without content.
    """
    overall = float(known.value.mean())
    mean_I = mean_of(known.item_idx, known.value, known.num_items, SHRINKAGE, overall)
    found = {"item_mean": mean_I[rows.item_idx]}
    found["item_count"] = np.bincount(known.item_idx, minlength=known.num_items)[rows.item_idx].astype(float)
    found["liked"] = np.diff(rows.offsets).astype(float)
    found["liked_mean_of_items"] = _mean(mean_I[rows.history], rows)
    found.update(_liked_together(known, rows))
    found.update(_content(rows.item_idx, rows, content_ID, "liked"))
    found.update(_disliked(known, rows, content_ID))
    return found


def _mean(values: np.ndarray, rows: Rows) -> np.ndarray:
    """(n,) mean of history values (h,) by row; NaN without history."""
    count = np.diff(rows.offsets)
    total = np.bincount(rows.owner, values, len(count))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _liked_together(known: Ratings, rows: Rows) -> dict[str, np.ndarray]:
    """How much more the item is liked by users who like the same items as the row's user, compared with all users."""
    shape = (known.num_users, known.num_items)
    at = (known.user_idx, known.item_idx)
    liked, rated = (sp.csr_matrix((v, at), shape=shape) for v in (known.value, np.ones(len(known.value))))
    pairs_II = (rated.T @ liked).toarray()  # [i, j]: users who rated i and like j
    both_II = (liked.T @ liked).toarray()
    mean_I = mean_of(known.item_idx, known.value, known.num_items, SHRINKAGE, float(known.value.mean()))
    item = rows.item_idx[rows.owner]
    pairs, both = pairs_II[item, rows.history], both_II[item, rows.history]
    gain = both - mean_I[item] * pairs
    size = len(rows.item_idx)
    total, weight = np.bincount(rows.owner, gain, size), np.bincount(rows.owner, pairs, size)
    return {
        "company": total / (weight + PAIR_SHRINKAGE),
        "company_rows": weight,
        "company_each": _mean(gain / (pairs + SHRINKAGE), rows),
    }


def _content(item: np.ndarray, rows: Rows, content_ID: np.ndarray, name: str) -> dict[str, np.ndarray]:
    """Cosine of the item's content with the history's: the mean, that of the TOP nearest, that of the RECENT newest."""
    cosine = np.einsum("hd,hd->h", content_ID[item[rows.owner]], content_ID[rows.history]).astype(float)
    count = np.diff(rows.offsets)
    order = np.lexsort((-cosine, rows.owner))
    place = ranges(count)
    best = np.bincount(rows.owner, np.where(place < TOP, cosine[order], 0.0), len(count))
    new = place >= np.repeat(count - RECENT, count)
    recent = np.bincount(rows.owner, np.where(new, cosine, 0.0), len(count))
    none = count == 0
    return {
        f"content_{name}": _mean(cosine, rows),
        f"content_{name}_best": np.where(none, np.nan, best / np.maximum(np.minimum(count, TOP), 1)),
        f"content_{name}_recent": np.where(none, np.nan, recent / np.maximum(np.minimum(count, RECENT), 1)),
    }


def _disliked(known: Ratings, rows: Rows, content_ID: np.ndarray) -> dict[str, np.ndarray]:
    """The same with the items that the user dislikes, by `known`."""
    no = known.value == 0
    order = np.argsort(known.user_idx[no], kind="stable")
    count_U = np.bincount(known.user_idx[no], minlength=known.num_users)
    count = count_U[rows.user_idx]
    offsets = np.concatenate(([0], np.cumsum(count)))
    start = (np.cumsum(count_U) - count_U)[rows.user_idx]
    at = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], count)
    disliked = Rows(rows.user_idx, rows.item_idx, known.item_idx[no][order][at], offsets)
    return _content(rows.item_idx, disliked, content_ID, "disliked")
