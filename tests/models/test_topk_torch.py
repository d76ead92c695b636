import numpy as np
import pytest
import scipy.sparse as sp
import torch

from recspark.models import topk, topk_torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("above", [-np.inf, 0.0])
def test_the_same_as_numpy_to_the_last_tie(above) -> None:
    rng = np.random.default_rng(2)
    queries, items = (rng.integers(-3, 4, (n, 8)).astype(np.float32) for n in (70, 300))  # exact, with many ties
    queries[0], queries[1, 0] = 0.0, np.nan
    seen, allowed = sp.random(70, 300, density=0.05, format="csr", random_state=1), rng.random(300) < 0.9
    tie_rank = rng.permutation(300)
    expected = topk.top_k(queries @ items.T, 20, seen, allowed, tie_rank, above)
    placed = (torch.from_numpy(side).to(DEVICE) for side in (queries, items))
    found = topk_torch.top_k(*placed, 20, seen, allowed, tie_rank, above, rows=32)
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])


def test_fewer_items_than_places() -> None:
    idx, best = topk_torch.top_k(torch.ones(2, 1), torch.tensor([[1.0], [2.0]]), 3)
    assert idx.tolist() == [[1, 0, -1]] * 2 and best.tolist() == [[2.0, 1.0, -np.inf]] * 2
    assert topk_torch.top_k(torch.ones(2, 1), torch.zeros(0, 1), 1)[0].tolist() == [[-1], [-1]]
