import numpy as np

from recspark.config.retrievers import MatrixFactorization
from recspark.histories import Histories
from recspark.models.retrievers import matrix_factorization
from recspark.models.retrievers.catalogue import Catalogue


def histories(users: list[list[int]]) -> Histories:
    offsets = np.concatenate(([0], np.cumsum([len(user) for user in users])))
    item = np.array([i for user in users for i in user])
    ones = np.ones(len(item))
    return Histories(offsets, item, np.zeros(len(item), int), ones, ones, ones, ones)


def scores(model: matrix_factorization.Model, users: list[list[int]]) -> np.ndarray:
    return matrix_factorization.scores(model, histories(users), np.zeros(len(users), int), np.zeros(len(users)))


def test_two_blocks_are_two_factors() -> None:
    """Users have 0 and 1 or 2 and 3, always both: each block is one factor with loadings 1 / sqrt(2), so a user of
    item 0 gets 1/2 for 0 and for 1, and 0 for the rest."""
    trained = histories([[0, 1]] * 3 + [[2, 3]] * 2)
    model = matrix_factorization.fit(trained, Catalogue(5, 1), MatrixFactorization(num_factors=2), seed=0)
    np.testing.assert_allclose(scores(model, [[0], [3]]), [[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0]], atol=1e-6)


def test_no_more_factors_than_the_data_has() -> None:
    trained = histories([[0, 1], [1, 2]])
    model = matrix_factorization.fit(trained, Catalogue(3, 1), MatrixFactorization(num_factors=64), seed=0)
    assert model.items_IF.shape == (3, 2)
