"""Items whose content is similar to the content of the user's items: also finds items without any event.

Shapes: U users, I items, D numbers of a content vector.
"""

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array


def unit(vectors_ID: Array) -> Array:
    """Rows scaled to length 1, float32; a row of zeros (no content) stays zeros."""
    length = np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return np.asarray(vectors_ID / np.where(length > 0, length, 1.0), dtype=np.float32)


def profiles(history_UI: sp.csr_matrix, vectors_ID: Array) -> Array:
    """Weighted mean of the unit vectors of the user's items, scaled to length 1, float32 (U, D); zeros if none of them
    has content."""
    return unit(np.asarray(history_UI @ vectors_ID))


def scores(profiles_UD: Array, vectors_ID: Array) -> Array:
    """Cosine of every user and item, float32 (U, I); 0 (not scored) where one of them has no content."""
    return np.asarray(profiles_UD @ vectors_ID.T)
