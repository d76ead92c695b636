import numpy as np
import pytest
import scipy.sparse as sp

from recspark.models import topk
from recspark.models.topk import Product, top_k, top_k_capped


def by_sorting(scores, k, seen, allowed, tie_rank):
    """The definition, one row at a time: sort by (-score, tie_rank), drop what is masked."""
    rows = []
    for u, row in enumerate(scores):
        banned = set() if seen is None else set(seen[u].indices)
        keep = [i for i in range(len(row)) if i not in banned and (allowed is None or allowed[i]) and row[i] > -np.inf]
        keep.sort(key=lambda i: (-row[i], tie_rank[i]))
        rows.append((keep + [-1] * k)[:k])
    return np.array(rows)


@pytest.fixture
def case():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (50, 40)).astype(np.float32)  # six values: ties everywhere, at the cut too
    seen = sp.random(50, 40, density=0.2, format="csr", random_state=1)
    return scores, seen, rng.random(40) < 0.8, rng.permutation(40)


@pytest.mark.parametrize("k", [1, 7, 31, 40, 60])
def test_equals_sorting(case, k) -> None:
    scores, seen, allowed, tie_rank = case
    idx, best = top_k(scores, k, seen, allowed, tie_rank)
    assert np.array_equal(idx, by_sorting(scores, k, seen, allowed, tie_rank))
    found = idx >= 0
    assert np.array_equal(best[found], scores[np.nonzero(found)[0], idx[found]])
    assert (best[~found] == -np.inf).all()


@pytest.mark.parametrize("values", ["few", "normal", "constant"])
def test_many_columns_equal_sorting(values) -> None:
    """With so many columns most are skipped: also with ties at the cut, few allowed columns, and both zeros."""
    rng = np.random.default_rng(1)
    made = {
        "few": rng.integers(-3, 300, (40, 3000)),
        "normal": rng.normal(size=(40, 3000)),
        "constant": np.ones((40, 3000)),
    }
    scores = made[values].astype(np.float32)
    scores[0], scores[1, 7:], scores[2, ::2] = -np.inf, -np.inf, np.nan
    scores[3] = rng.choice(np.array([0.0, -0.0, -1.0], np.float32), 3000)
    seen, allowed = sp.random(40, 3000, density=0.05, format="csr", random_state=1), rng.random(3000) < 0.9
    tie_rank = rng.permutation(3000)
    idx, best = top_k(scores, 9, seen, allowed, tie_rank)
    assert np.array_equal(idx, by_sorting(scores, 9, seen, allowed, tie_rank))
    found = idx >= 0
    assert np.array_equal(best[found], scores[np.nonzero(found)[0], idx[found]])


@pytest.mark.parametrize("order", ["rising", "falling", "equal"])
def test_any_order_of_the_columns(order) -> None:
    """Rising: every tile is better than what was kept before it."""
    made = {"rising": np.arange(5000), "falling": -np.arange(5000), "equal": np.zeros(5000)}
    scores = np.tile(made[order].astype(np.float32), (3, 1))
    expected = np.arange(4999, 4979, -1) if order == "rising" else np.arange(20)
    assert np.array_equal(top_k(scores, 20)[0], np.tile(expected, (3, 1)))


def test_a_product_equals_its_matrix() -> None:
    rng = np.random.default_rng(2)
    queries, items = (rng.integers(-3, 4, (n, 8)).astype(np.float32) for n in (700, 1300))  # exact, with many ties
    seen, allowed = sp.random(700, 1300, density=0.05, format="csr", random_state=1), rng.random(1300) < 0.9
    tie_rank = rng.permutation(1300)
    made = top_k(Product(queries, items.T), 30, seen, allowed, tie_rank)
    given = top_k(queries @ items.T, 30, seen, allowed, tie_rank)
    assert np.array_equal(made[0], given[0]) and np.array_equal(made[1], given[1])
    alone = [top_k(Product(queries[u : u + 1], items.T), 30, seen[u], allowed, tie_rank)[0][0] for u in range(20)]
    assert np.array_equal(alone, given[0][:20])


def test_only_above() -> None:
    scores = np.array([[0.0, -0.0, 2.0, -1.0, 1e-45, np.inf]])
    assert top_k(scores, 4, above=0.0)[0].tolist() == [[5, 2, 4, -1]]
    assert top_k(scores, 6)[0].tolist() == [[5, 2, 4, 0, 1, 3]]


def test_nothing_to_choose_from() -> None:
    assert top_k(np.zeros((2, 0), np.float32), 3)[0].tolist() == [[-1, -1, -1]] * 2
    assert top_k(np.zeros((0, 5), np.float32), 3)[0].shape == (0, 3)


def test_by_hand() -> None:
    scores = np.array([[1.0, 3.0, 3.0, 2.0]])
    assert top_k(scores, 2)[0].tolist() == [[1, 2]]  # 3 and 3: the lower column first
    assert top_k(scores, 1, tie_rank=np.array([0, 2, 1, 3]))[0].tolist() == [[2]]  # now column 2 is the first of them
    seen = sp.csr_matrix(np.array([[0, 1, 1, 0]]))
    assert top_k(scores, 3, seen)[0].tolist() == [[3, 0, -1]]  # two are seen, two are left


def test_nan_is_never_chosen() -> None:
    assert top_k(np.array([[np.nan, 1.0, -np.inf]]), 3)[0].tolist() == [[1, -1, -1]]


def test_allowed_by_row() -> None:
    allowed = np.array([[True, False], [False, True]])
    assert top_k(np.ones((2, 2)), 1, allowed=allowed)[0].tolist() == [[0], [1]]


def test_blocks_single_rows_and_order_agree(case, monkeypatch) -> None:
    scores, seen, allowed, tie_rank = case
    whole = top_k(scores, 7, seen, allowed, tie_rank)[0]
    single = [top_k(scores[u : u + 1], 7, seen[u], allowed, tie_rank)[0][0] for u in range(50)]
    assert np.array_equal(whole, single)
    turned = top_k(scores[::-1], 7, seen[::-1], allowed, tie_rank)[0][::-1]
    assert np.array_equal(whole, turned)
    monkeypatch.setattr(topk, "ROWS", 3)
    monkeypatch.setattr(topk, "TILE", 11)  # more than 7: the first one gives a bound; 40 = 3 x 11 + 7
    assert np.array_equal(whole, top_k(scores, 7, seen, allowed, tie_rank)[0])
    monkeypatch.setattr(topk, "TILE", 5)  # less than 7
    assert np.array_equal(whole, top_k(scores, 7, seen, allowed, tie_rank)[0])


def test_input_stays_as_it_was(case) -> None:
    scores, seen, allowed, tie_rank = case
    before = scores.copy()
    top_k(scores, 5, seen, allowed, tie_rank)
    assert np.array_equal(before, scores)


def capped_by_sorting(scores, k, code, most, seen, allowed, tie_rank):
    """The definition, one row at a time: all allowed items, best first; items over the limit go to the end."""
    rows = []
    for row in by_sorting(scores, scores.shape[1], seen, allowed, tie_rank):
        within, beyond, had = [], [], {}
        for i in row[row >= 0]:
            had[code[i]] = had.get(code[i], 0) + 1
            (beyond if code[i] >= 0 and had[code[i]] > most else within).append(i)
        rows.append(([*within, *beyond] + [-1] * k)[:k])
    return np.array(rows)


@pytest.mark.parametrize("most", [1, 2, 5, 50])
@pytest.mark.parametrize("k", [1, 7, 31, 60])
@pytest.mark.parametrize("num_codes", [1, 3, 30])
def test_capped_equals_sorting(case, k, most, num_codes) -> None:
    scores, seen, allowed, tie_rank = case
    code = np.random.default_rng(3).integers(-1, num_codes, 40).astype(np.int32)
    for among, free in ((seen, allowed), (None, None)):
        idx, best = top_k_capped(scores, k, code, most, among, free, tie_rank)
        assert np.array_equal(idx, capped_by_sorting(scores, k, code, most, among, free, tie_rank))
        found = idx >= 0
        assert np.array_equal(best[found], scores[np.nonzero(found)[0], idx[found]])
        assert (best[~found] == -np.inf).all()


def test_capped_by_hand() -> None:
    scores, code = np.array([[9.0, 8.0, 7.0, 6.0, 5.0, 4.0]]), np.array([0, 0, 0, 1, -1, -1])
    assert top_k_capped(scores, 3, code, 1)[0].tolist() == [[0, 3, 4]]  # one of code 0, one of 1; -1 is no code
    assert top_k_capped(scores, 4, code, 2)[0].tolist() == [[0, 1, 3, 4]]
    assert top_k_capped(scores, 6, code, 1)[0].tolist() == [[0, 3, 4, 5, 1, 2]]  # nothing else is left for two places
    seen = sp.csr_matrix(np.array([[1, 0, 0, 0, 1, 1]]))
    assert top_k_capped(scores, 3, code, 1, seen)[0].tolist() == [[1, 3, 2]]


def test_capped_rows_alone_and_nothing_to_choose_from(case) -> None:
    scores, seen, allowed, tie_rank = case
    code = np.arange(40) % 3
    whole = top_k_capped(scores, 7, code, 2, seen, allowed, tie_rank)[0]
    single = [top_k_capped(scores[u : u + 1], 7, code, 2, seen[u], allowed, tie_rank)[0][0] for u in range(50)]
    assert np.array_equal(whole, single)
    assert top_k_capped(np.zeros((2, 0), np.float32), 3, code[:0], 1)[0].tolist() == [[-1, -1, -1]] * 2
    assert top_k_capped(np.zeros((0, 40), np.float32), 3, code, 1)[0].shape == (0, 3)
