"""Features of users and items from who rated which item, without the values of the ratings: implicit feedback.

Shapes: R users or items, F features.
Reference: Koren 2008, Factorization Meets the Neighborhood.
"""

import numpy as np
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

from benchmarks.research.ratings.ratings import Ratings


def features(ratings: Ratings, num_factors: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(users_RF, items_RF), standardised, F = num_factors + 1: the log of the number of ratings, and singular vectors.

    The singular vectors are the leading ones of the 0/1 matrix divided by the roots of both counts, without the first,
    which repeats the counts.
    """
    shape = (ratings.num_users, ratings.num_items)
    seen = sp.csr_matrix((np.ones(len(ratings.value)), (ratings.user_idx, ratings.item_idx)), shape=shape)
    counts = [np.asarray(seen.sum(axis=axis)).ravel() for axis in (1, 0)]
    left, right = (sp.diags(np.maximum(count, 1.0) ** -0.5) for count in counts)
    users, _, items = randomized_svd(left @ seen @ right, num_factors + 1, random_state=seed)
    users_RF, items_RF = (
        standardised(np.column_stack([np.log1p(count), vectors[:, 1:]]))
        for count, vectors in zip(counts, (users, items.T), strict=True)
    )
    return users_RF, items_RF


def standardised(columns: np.ndarray) -> np.ndarray:
    """Columns (R, F) with mean 0 and standard deviation 1; a constant column becomes 0."""
    centred = columns - columns.mean(axis=0)
    return centred / np.maximum(centred.std(axis=0), 1e-12)
