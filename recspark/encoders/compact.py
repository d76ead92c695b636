"""Shorter vectors by PCA, and their cost: the share of the nearest neighbours that stay the same."""

from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array
from recspark.encoders.vectors import has_content

FIT_ROWS = 50_000  # vectors that a projection is fitted on; of more, a sample
QUERIES, NEAREST = 500, 10


@dataclass(frozen=True)
class Projection:
    """`mean` (D,) float32 and `components` (d, D) float32, scaled to unit variance with whitening."""

    mean: Array
    components: Array

    def __call__(self, vectors: Array) -> Array:
        """float32 (n, d) from (n, D), rows with content."""
        return np.asarray((vectors - self.mean) @ self.components.T, np.float32)


def fit(vectors: Array, dim: int, whiten: bool, seed: int) -> Projection:
    """Principal components of the rows (n, D) that have content.

    Raises: ValueError where there are fewer rows, or dimensions, than `dim`.
    """
    from sklearn.decomposition import PCA  # here: the import takes half a second, and only a fit needs it

    model = PCA(dim, whiten=whiten, random_state=seed).fit(vectors[has_content(vectors)].astype(np.float64))
    scale = np.sqrt(model.explained_variance_)[:, None] if whiten else 1.0
    return Projection(model.mean_.astype(np.float32), (model.components_ / scale).astype(np.float32))


def recall(before: Array, after: Array, nearest: int = NEAREST, queries: int = QUERIES) -> float:
    """The share of the `nearest` neighbours by cosine among `before` (n, D) that are also those among `after` (n, d).

    For the first `queries` rows with content; a row is no neighbour of itself. NaN with fewer than two rows.
    """
    kept = has_content(before)
    before, after = _unit(before[kept]), _unit(after[kept])
    queries, nearest = min(queries, len(before)), min(nearest, len(before) - 1)
    if nearest < 1:
        return float("nan")
    best = []
    for vectors in (before, after):
        scores = vectors[:queries] @ vectors.T
        scores[np.arange(queries), np.arange(queries)] = -np.inf
        best.append(np.argpartition(-scores, nearest - 1, axis=1)[:, :nearest])
    hits = [len(np.intersect1d(*pair)) for pair in zip(*best, strict=True)]
    return float(np.mean(hits) / nearest)


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny))
