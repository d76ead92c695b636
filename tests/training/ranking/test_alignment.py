"""The discrepancy by hand."""

import numpy as np
import pytest
import torch

from recspark.training.ranking import alignment


def test_discrepancy_by_hand() -> None:
    """x = 0, 2 and y = 4, 6 on a line: squared distances 4 within each side and 16, 36, 4, 16 across; the mean of
    all 16 pairs, with the zeros of the diagonal, is (4 * 4 + 2 * (16 + 36 + 4 + 16)) / 16 = 10."""
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])

    def kernel(square: float) -> float:
        return float(np.mean([np.exp(-square / (width * 10)) for width in (0.25, 0.5, 1.0, 2.0, 4.0)]))

    expected = 2 * kernel(4) - 2 * (2 * kernel(16) + kernel(36) + kernel(4)) / 4
    assert float(alignment.discrepancy(x, y)) == pytest.approx(expected, rel=1e-5)
    assert float(alignment.discrepancy(x, y[:1])) == 0.0  # nothing to compare one row's spread with


def test_samples_of_one_distribution_do_not_differ() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = (torch.randn(400, 3, generator=draw) for _ in range(2))
    assert abs(float(alignment.discrepancy(one, other))) < 0.01 < float(alignment.discrepancy(one, other + 1))
