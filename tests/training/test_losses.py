"""Loss sums derived by hand."""

import math

import numpy as np
import pytest
import torch

from recspark.training import losses

KINDS = ("binary", "regression")
NAN = math.nan


def test_targets_are_on_the_log_scale_with_their_sign() -> None:
    labels = np.array([[1.0, 10.0], [0.0, -10.0], [NAN, NAN]])
    out = losses.targets(labels, KINDS)
    np.testing.assert_allclose(out, [[1, math.log(11)], [0, -math.log(11)], [NAN, NAN]], rtol=1e-6)


def test_sums_by_hand() -> None:
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [5.0, 5.0]])
    targets = torch.tensor([[1.0, 4.0], [0.0, NAN], [NAN, NAN]])
    sums, weights = losses.sums(
        logits, targets, torch.tensor([1.0, 3.0, 7.0]), KINDS, torch.tensor([9.0, 2.0]), torch.tensor([9.0, 4.0])
    )
    # cross-entropy: log 2 at logit 0; log(1 + e^2) for a 0 at logit 2. Huber: (4 - 2) / 4 = .5 against 1 -> .5^2 / 2
    assert sums.tolist() == pytest.approx([1 * math.log(2) + 3 * math.log(1 + math.exp(2)), 1 * 0.5**2 / 2])
    assert weights.tolist() == [4.0, 1.0]


def test_rows_without_a_label_or_weight_have_no_gradient() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    targets = torch.tensor([[1.0, 1.0], [NAN, NAN], [1.0, 1.0]])
    sums, _ = losses.sums(logits, targets, torch.tensor([1.0, 1.0, 0.0]), KINDS, torch.zeros(2), torch.ones(2))
    sums.sum().backward()
    assert logits.grad is not None and logits.grad[0].abs().min() > 0
    assert logits.grad[1:].abs().max() == 0
