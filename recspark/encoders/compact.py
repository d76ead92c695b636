"""Fewer numbers a vector (PCA), and what smaller vectors cost: how many of the nearest neighbours stay."""

from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array
from recspark.encoders.vectors import has_content

FIT_ROWS = 50_000  # vectors that a projection is fitted on, a sample beyond
QUERIES, NEAREST = 500, 10


@dataclass(frozen=True)
class Projection:
    """`mean` (D,) float32 and `components` (d, D) float32, scaled to unit variance where it whitens."""

    mean: Array
    components: Array

    def __call__(self, vectors: Array) -> Array:
        """float32 (n, d) from (n, D), rows with content."""
        return ((vectors - self.mean) @ self.components.T).astype(np.float32)


def fit(vectors: Array, dim: int, whiten: bool, seed: int) -> Projection:
    """Principal components of the rows (n, D) that have content.

    Raises ValueError where there are fewer of them, or of numbers, than `dim`.
    """
    from sklearn.decomposition import PCA  # half a second that a night without it need not wait for

    model = PCA(dim, whiten=whiten, random_state=seed).fit(vectors[has_content(vectors)].astype(np.float64))
    scale = np.sqrt(model.explained_variance_)[:, None] if whiten else 1.0
    return Projection(model.mean_.astype(np.float32), (model.components_ / scale).astype(np.float32))


def recall(before: Array, after: Array, nearest: int = NEAREST, queries: int = QUERIES) -> float:
    """Of the `nearest` neighbours by cosine among `before` (n, D), which share is among those by `after` (n, d).

    Asked of the first `queries` rows with content; a row is no neighbour of itself. NaN with fewer than two rows.
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
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
