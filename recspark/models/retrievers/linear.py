"""EASE: the linear item-to-item model in closed form (Steck 2019, Embarrassingly Shallow Autoencoders for Sparse Data).

Shapes: U users, I items. Memory is set by I: 4 I^2 bytes for the weights, about 16 I^2 while they are computed.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from recspark.arrays import Array

ROWS_A_BLOCK = 256


def gram_blocks(history_UI: sp.csr_matrix, rows: int = ROWS_A_BLOCK) -> Iterator[tuple[int, sp.csr_matrix]]:
    """X^T X of some users in strips of `rows` items: (strip number, sparse (<= rows, I)), empty strips left out.

    The strips of all users are the sum of those of some users and of the others. Memory: X and one strip.
    """
    history_IU = history_UI.T.tocsr()
    for strip in range(-(-history_UI.shape[1] // rows)):
        part = history_IU[strip * rows : (strip + 1) * rows]
        if part.nnz:
            yield strip, (part @ history_UI).tocsr()


def assemble(strips: Iterable[tuple[int, sp.csr_matrix]], num_items: int, rows: int = ROWS_A_BLOCK) -> Array:
    """Finished strips, each number once, as one dense Gram matrix, float64 (I, I)."""
    gram_II = np.zeros((num_items, num_items))
    for strip, part in strips:
        gram_II[strip * rows : strip * rows + part.shape[0]] = part.toarray()
    return gram_II


def fit(gram_II: Array, l2: float) -> Array:
    """Weights B = -P / diag(P) with P = (G + l2 I)^-1 and a zero diagonal, computed in float64.

    Returns: float32 (I, I); B[i, j] is what item i of a history adds to the score of item j. Items without any event
    have weights 0 and cost nothing.
    """
    active = np.flatnonzero(gram_II.diagonal())
    weights_II = np.zeros(gram_II.shape, dtype=np.float32)
    if not len(active):
        return weights_II
    inverse = _inverse(gram_II[np.ix_(active, active)], l2)
    inverse /= -inverse.diagonal()  # the negation is a copy, so nothing overlaps
    np.fill_diagonal(inverse, 0.0)
    weights_II[np.ix_(active, active)] = inverse
    return weights_II


def _inverse(gram: Array, l2: float) -> Array:
    """(gram + l2 I)^-1 by Cholesky, half the work of a general inverse; `gram` is overwritten."""
    gram[np.diag_indices(len(gram))] += l2
    # The matrix is symmetric: its transpose is the Fortran order that LAPACK overwrites without a copy.
    factor, info = lapack.dpotrf(gram.T, lower=True, clean=False, overwrite_a=True)
    assert info == 0, f"Gram matrix + {l2} is not positive definite (LAPACK {info})"
    lower, info = lapack.dpotri(factor, lower=True, overwrite_c=True)
    assert info == 0, f"dpotri failed (LAPACK {info})"
    for low in range(0, len(lower), ROWS_A_BLOCK):  # LAPACK filled the lower triangle only
        strip = slice(low, low + ROWS_A_BLOCK)
        lower[strip, strip] = np.tril(lower[strip, strip]) + np.tril(lower[strip, strip], -1).T
        lower[strip, low + ROWS_A_BLOCK :] = lower[low + ROWS_A_BLOCK :, strip].T
    return np.asarray(lower)


def scores(history_UI: sp.csr_matrix, weights_II: Array) -> Array:
    """float32 (U, I): the sum of the weights of the user's items; zeros (not scored) for a user without history."""
    return np.asarray(history_UI @ weights_II, dtype=np.float32)
