import numpy as np
import scipy.sparse as sp

from recspark.models.retrievers import linear


def test_three_items_by_hand() -> None:
    """One user has items 0 and 1, another one item 2 alone; l2 = 1.

    G + I = [[2, 1, 0], [1, 2, 0], [0, 0, 2]]; the inverse of [[2, 1], [1, 2]] is [[2, -1], [-1, 2]] / 3.
    B[0, 1] = -P[0, 1] / P[1, 1] = -(-1/3) / (2/3) = 1/2; nothing adds to item 2.
    """
    history = sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 1]], dtype=np.float32))
    weights = linear.fit((history.T @ history).toarray().astype(float), l2=1.0)
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, [[0, 1 / 2, 0], [1 / 2, 0, 0], [0, 0, 0]], atol=1e-7)
    one = sp.csr_matrix(np.array([[1, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(linear.scores(one, weights), [[0, 1 / 2, 0]], atol=1e-7)


def test_equals_the_paper_on_random_data() -> None:
    """Against the formula by a general inverse; 600 items cross the strips in which the triangle is mirrored."""
    history = sp.random(300, 600, density=0.05, format="csr", random_state=0)
    history.data[:] = 1
    gram = (history.T @ history).toarray()
    inverse = np.linalg.inv(gram + 5.0 * np.eye(600))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(linear.fit(gram, l2=5.0), expected, atol=1e-6)


def test_items_without_events_are_not_scored() -> None:
    gram = np.array([[2.0, 0, 1], [0, 0, 0], [1, 0, 2]])
    weights = linear.fit(gram.copy(), l2=1.0)
    assert not weights[1].any() and not weights[:, 1].any()
    without = linear.fit(gram[np.ix_([0, 2], [0, 2])], l2=1.0)
    np.testing.assert_array_equal(weights[np.ix_([0, 2], [0, 2])], without)
    assert not linear.fit(np.zeros((3, 3)), l2=1.0).any()


def test_strips_of_user_blocks_add_up_to_the_gram_matrix() -> None:
    history = sp.random(40, 23, density=0.3, format="csr", random_state=0)
    history.data[:] = 1
    whole = (history.T @ history).toarray()
    strips: dict[int, sp.csr_matrix] = {}
    for users in (history[:7], history[7:]):
        for strip, part in linear.gram_blocks(users, rows=5):
            strips[strip] = strips[strip] + part if strip in strips else part
    np.testing.assert_array_equal(linear.assemble(strips.items(), 23, rows=5), whole)


def test_scores_of_a_batch_and_of_one_user_agree() -> None:
    history = sp.random(30, 20, density=0.3, format="csr", random_state=0)
    weights = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    batch = linear.scores(history, weights)
    for user in range(30):
        np.testing.assert_allclose(batch[user], linear.scores(history[user], weights)[0], atol=1e-6)
