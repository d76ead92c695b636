"""The discrepancy by hand, and the reversed gradient."""

import math

import numpy as np
import pytest
import torch

from recspark.models.rankers import network as networks
from recspark.models.rankers.spec import Spec
from recspark.training.feed.feed import Batch
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


def test_the_gradient_is_turned_round() -> None:
    x = torch.tensor([[1.0, -2.0]], requires_grad=True)
    out = alignment.reverse_gradient(x, 0.3)
    torch.testing.assert_close(out, x)
    (out * torch.tensor([[1.0, 10.0]])).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[-0.3, -3.0]], rtol=1e-6)


def test_the_critic_learns_what_the_hidden_layer_is_taught_to_hide() -> None:
    """Hidden units 1 for the target's 10 rows of 100, else 0. A critic that knows nothing loses log 2, however few rows
    are the target's. While it learns, the hidden layer gets the opposite of its gradient: away from what it uses."""
    spec = Spec(("a",), ("t",), ("binary",), 5, 2, 0, 2, 4, (8, 4), 3, 0.0)
    network = networks.build(spec, 0)
    scenario = (np.arange(100) % 10 == 0).astype(np.int32)
    ints = np.stack([scenario * 0, scenario, scenario, scenario], axis=1)
    rows = Batch(ints, np.zeros((100, 1), np.float32), np.ones(100, np.float32), 100)
    hidden = torch.from_numpy(np.repeat(scenario[:, None], 4, axis=1).astype(np.float32)).requires_grad_()
    penalty = alignment.adversarial(network, lambda: hidden, 1, num_steps=10).penalty
    assert penalty is not None
    assert float(penalty(rows, 0)) == pytest.approx(math.log(2), abs=0.2)
    optimizer = torch.optim.Adam(network.critic.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        penalty(rows, 0).backward()
        optimizer.step()
    assert float(penalty(rows, 0)) < 0.1
    hidden.grad = None
    penalty(rows, 10).backward()
    moved = hidden.detach() - 3 * hidden.grad / hidden.grad.norm()  # a step of the hidden layer's own descent
    before, hidden.data = float(penalty(rows, 10)), moved
    assert float(penalty(rows, 10)) > before
