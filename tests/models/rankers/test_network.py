"""Funnels, cross layers and the noise of scenarios, by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from recspark.models.layers import Cross, look_up
from recspark.models.rankers import network
from recspark.models.rankers.spec import Spec

SPEC = Spec(
    features=("a",), tasks=("buy", "cart", "view"), kinds=("binary",) * 3, num_items=5, num_scenarios=2, num_missing=0,
    content_dim=2, embedding_dim=3, hidden=(8,), history_length=2, dropout=0.0,
)  # fmt: skip


def test_a_step_of_a_funnel_is_the_product_of_the_steps_before() -> None:
    steps = torch.tensor([[0.5, -1.0, 2.0], [-3.0, 4.0, 0.0]])  # buy given cart, cart given view, view
    buy, cart, view = torch.sigmoid(steps).unbind(1)
    joint = torch.sigmoid(network.funnel(steps, given=(1, 2, -1)))
    torch.testing.assert_close(joint, torch.stack((buy * cart * view, cart * view, view), dim=1))
    assert torch.equal(network.funnel(steps, given=(-1, -1, 1))[:, :2], steps[:, :2])


def test_a_funnel_is_stable_where_probabilities_are_not() -> None:
    steps = torch.tensor([[-60.0, -60.0], [60.0, 60.0]], requires_grad=True)
    joint = network.funnel(steps, given=(1, -1))
    # both steps e^-60: the logit is near -120; both 1 - e^-60: the probability to fail is twice as high, so 60 - log 2
    torch.testing.assert_close(joint[:, 0], torch.tensor([-120.0, 60 - math.log(2)]))
    joint.sum().backward()
    assert steps.grad is not None and torch.isfinite(steps.grad).all()


def test_the_network_applies_its_funnel() -> None:
    x = look_up(
        np.ones((3, 1), np.float32), np.array([0, 1, 9]), np.arange(3), -np.ones((3, 2), np.int32), np.eye(5, 2)
    )
    plain, funnel = (network.build(replace(SPEC, given=given), 0)(x) for given in ((), (1, 2, -1)))
    torch.testing.assert_close(network.funnel(plain, (1, 2, -1)), funnel)
    assert (
        torch.diff(funnel, dim=1) > 0
    ).all()  # a buyer has put the item into the cart, and before that has viewed it


def test_cross_layers_by_hand() -> None:
    cross = Cross(2, 2)
    for linear, weight, bias in zip(cross.linears, ([[1.0, 0], [0, 1]], [[0, 1.0], [1, 0]]), (0.0, 1.0), strict=True):
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.full((2,), bias)
    # x0 = (2, 3); layer 1: x0 * x0 + x0 = (6, 12); layer 2: x0 * ((12, 6) + 1) + (6, 12) = (26 + 6, 21 + 12)
    assert cross(torch.tensor([[2.0, 3.0]])).tolist() == [[32.0, 33.0]]


def test_cross_layers_learn_a_product_that_the_body_cannot() -> None:
    """y = sign of a * b, and a body with a single hidden unit."""
    generator = np.random.default_rng(0)
    dense = generator.uniform(-1, 1, (512, 2)).astype(np.float32)
    target = torch.from_numpy((dense[:, 0] * dense[:, 1] > 0).astype(np.float32))
    zeros = np.zeros(512, np.int64)
    x = look_up(dense, zeros, zeros, -np.ones((512, 2), np.int32), np.zeros((5, 2), np.float32))
    right = {}
    for layers in (0, 1):
        spec = replace(SPEC, features=("a", "b"), tasks=("click",), kinds=("binary",), hidden=(1,), cross_layers=layers)
        model = network.build(spec, 0)
        model.fit(dense, zeros, target.numpy()[:, None])
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        for _ in range(120):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], target).backward()
            optimizer.step()
        right[layers] = float(((model(x)[:, 0] > 0) == (target > 0)).float().mean())
    assert right[0] < 0.8 and right[1] > 0.9, right


@pytest.mark.parametrize(("weighting", "extra"), [("fixed", 0), ("uncertainty", 3)])
def test_only_uncertainty_learns_variances(weighting: str, extra: int) -> None:
    counts = [
        sum(parameter.numel() for parameter in network.build(replace(SPEC, task_weighting=way), 0).parameters())
        for way in ("fixed", weighting)
    ]
    assert counts[1] - counts[0] == extra
