"""Items whose content is near what the user had: the way in for items that nobody bought yet.

Shapes: U users, I items, D numbers of a content vector.
"""

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array


def unit(vectors_ID: Array) -> Array:
    """Rows at length 1, float32; a row of zeros (no content) stays zeros."""
    length = np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return (vectors_ID / np.where(length > 0, length, 1.0)).astype(np.float32)


def profiles(history_UI: sp.csr_matrix, vectors_ID: Array) -> Array:
    """Weighted mean of the unit vectors of the user's items, at length 1, float32 (U, D); zeros without content."""
    return unit(np.asarray(history_UI @ vectors_ID))


def scores(profiles_UD: Array, vectors_ID: Array) -> Array:
    """Cosine of every user and item, float32 (U, I); 0 where one of them has no content, which says nothing."""
    return profiles_UD @ vectors_ID.T
