"""The closed form and the regressions over neighbours: by hand, against the paper, and against each other."""

import numpy as np
import pytest
import scipy.sparse as sp

from recspark.models.retrievers import linear

BOTH = pytest.mark.parametrize("closed_form_items", [1000, 0])  # 0: never the closed form


def binary(users: int, items: int, density: float) -> sp.csr_matrix:
    history = sp.random(users, items, density=density, format="csr", random_state=0)
    history.data[:] = 1
    return history


def dense(weights: object) -> np.ndarray:
    return weights.toarray() if sp.issparse(weights) else weights


@BOTH
def test_three_items_by_hand(closed_form_items) -> None:
    """One user has items 0 and 1, another one item 2 alone; l2 = 1.

    G + I = [[2, 1, 0], [1, 2, 0], [0, 0, 2]]; the inverse of [[2, 1], [1, 2]] is [[2, -1], [-1, 2]] / 3.
    B[0, 1] = -P[0, 1] / P[1, 1] = -(-1/3) / (2/3) = 1/2; nothing adds to item 2.
    """
    history = sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 1]], dtype=float))
    weights = linear.fit((history.T @ history).tocsr(), 1.0, closed_form_items)
    assert weights.dtype == np.float32 and sp.issparse(weights) == (closed_form_items == 0)
    np.testing.assert_allclose(dense(weights), [[0, 1 / 2, 0], [1 / 2, 0, 0], [0, 0, 0]], atol=1e-7)
    one = sp.csr_matrix(np.array([[1, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(linear.scores(one, weights), [[0, 1 / 2, 0]], atol=1e-7)
    np.testing.assert_allclose(linear.between(weights, np.array([1, 2]), np.array([0])), [[1 / 2], [0]], atol=1e-7)


def test_equals_the_paper_on_random_data() -> None:
    """Against the formula by a general inverse; 600 items cross the strips in which the triangle is mirrored."""
    history = binary(300, 600, 0.05)
    gram = (history.T @ history).tocsr()
    inverse = np.linalg.inv(gram.toarray() + 5.0 * np.eye(600))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(linear.fit(gram, 5.0), expected, atol=1e-6)


def test_all_items_as_neighbours_are_the_closed_form() -> None:
    """Every two of these 40 items share a user, so that nothing is left out."""
    history = binary(300, 40, 0.5)
    gram = (history.T @ history).tocsr()
    assert gram.nnz == 1600
    every, few = (dense(linear.nearest(gram, 5.0, n)) for n in (40, 5))
    np.testing.assert_allclose(every, linear.fit(gram, 5.0), atol=1e-6)
    assert (np.count_nonzero(few, axis=0) == 5).all()


def test_the_neighbours_that_explain_most_are_kept() -> None:
    """Of item 0: item 1 explains 3^2 / (4 + 1) = 1.8, item 2 4^2 / (19 + 1) = 0.8, although it is met more often.

    On item 1 alone, item 0 has 3 / (4 + 1).
    """
    gram = sp.csr_matrix(np.array([[6.0, 3, 4], [3, 4, 0], [4, 0, 19]]))
    found = linear.nearest(gram, 1.0, neighbours=1)
    np.testing.assert_allclose(found.toarray()[:, 0], [0, 3 / 5, 0], atol=1e-7)


@pytest.mark.parametrize("kind", [np.array, sp.csr_matrix])
def test_weights_between_a_history_and_items_have_a_direction(kind) -> None:
    """Item 0 adds 2 to item 1, which adds 3 to item 0."""
    weights = kind(np.array([[0, 2, 4], [3, 0, 5], [6, 7, 0]], np.float32))
    np.testing.assert_array_equal(linear.between(weights, np.array([0, 2]), np.array([1])), [[2], [7]])


def test_fewer_neighbours_for_more_items() -> None:
    """12,500 is an eighth of 100,000: twice the neighbours. At 100 times 100,000 half of them stay."""
    assert [linear.num_neighbours(items) for items in (12_500, 100_000, 10_000_000)] == [500, 250, 125]


@BOTH
def test_items_without_events_are_not_scored(closed_form_items) -> None:
    gram = sp.csr_matrix(np.array([[2.0, 0, 1], [0, 0, 0], [1, 0, 2]]))
    weights = dense(linear.fit(gram, 1.0, closed_form_items))
    assert not weights[1].any() and not weights[:, 1].any()
    without = dense(linear.fit(gram[[0, 2]][:, [0, 2]], 1.0, closed_form_items))
    np.testing.assert_array_equal(weights[np.ix_([0, 2], [0, 2])], without)
    assert not dense(linear.fit(sp.csr_matrix((3, 3)), 1.0, closed_form_items)).any()


@BOTH
def test_a_model_folder_gives_the_same_weights_back(closed_form_items) -> None:
    history = binary(50, 30, 0.2)
    weights = linear.fit((history.T @ history).tocsr(), 1.0, closed_form_items)
    again = linear.from_arrays(linear.to_arrays(weights), 30)
    np.testing.assert_array_equal(dense(again), dense(weights))
    assert linear.from_arrays({}, 30) is None


def test_strips_of_user_blocks_add_up_to_the_gram_matrix() -> None:
    history = binary(40, 23, 0.3)
    whole = (history.T @ history).toarray()
    strips: dict[int, sp.csr_matrix] = {}
    for users in (history[:7], history[7:]):
        for strip, part in linear.gram_blocks(users, rows=5):
            strips[strip] = strips[strip] + part if strip in strips else part
    np.testing.assert_array_equal(linear.assemble(strips.items(), 23, rows=5).toarray(), whole)


def test_scores_of_a_batch_and_of_one_user_agree() -> None:
    history = sp.random(30, 20, density=0.3, format="csr", random_state=0)
    weights = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    batch = linear.scores(history, weights)
    for user in range(30):
        np.testing.assert_allclose(batch[user], linear.scores(history[user], weights)[0], atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_memories_by_hand(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """User 0 had item 0 long ago (decayed to 1/2, so 1/16 with a quarter of the half-life) and item 1 today; user 1
    nothing."""
    dense = np.array([[0.0, 0.0, 0.8], [0.0, 0.0, 0.3], [0.0, 0.0, 0.0]], dtype=np.float32)
    weights = sp.csr_matrix(dense) if sparse else dense
    history = sp.csr_matrix(np.array([[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    users, items = np.array([0, 1, 0]), np.array([2, 2, 1])
    expected = [[0.8 / 16 + 0.3, 1.1, 0.8], [np.nan] * 3, [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(linear.memories(history, weights, users, items), expected, rtol=1e-6)
    monkeypatch.setattr(linear, "PAIRS", 1)  # less than one row has
    np.testing.assert_allclose(linear.memories(history, weights, users, items), expected, rtol=1e-6)


def test_a_rows_memories_depend_on_the_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    history = sp.random(30, 20, density=0.3, format="csr", random_state=0)
    weights = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    rng = np.random.default_rng(1)
    users, items = rng.integers(0, 30, 200), rng.integers(0, 20, 200)
    whole = linear.memories(history, weights, users, items)
    monkeypatch.setattr(linear, "PAIRS", 50)
    mixed = rng.permutation(200)
    np.testing.assert_array_equal(linear.memories(history, weights, users[mixed], items[mixed]), whole[mixed])
    undecayed = history.copy()
    undecayed.data[:] = 1.0
    np.testing.assert_allclose(whole[:, 1], linear.scores(undecayed, weights)[users, items], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@BOTH
def test_a_catalogue_at_which_lapack_died(closed_form_items) -> None:
    """At 23,000 items dpotrf of OpenBLAS ended the process with two threads. Pairs of items that only each other's
    users have: with c users a pair, the weight is c / (c + l2)."""
    items = 23_000
    users = np.repeat(np.arange(items // 2), 2)
    history = sp.csr_matrix((np.full(items, 2.0), (users, np.arange(items))), shape=(items // 2, items))
    weights = linear.fit((history.T @ history).tocsr(), 6.0, min(closed_form_items, linear.CLOSED_FORM_ITEMS))
    assert sp.issparse(weights) and weights.nnz == items
    np.testing.assert_allclose(weights.data, 4 / 10, atol=1e-7)
