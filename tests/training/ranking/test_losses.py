"""Loss sums derived by hand."""

import math

import numpy as np
import pytest
import torch

from recspark.errors import DataError
from recspark.training.ranking import losses

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


def test_a_task_of_few_labels_counts_as_little_as_they_are() -> None:
    """Rows labelled: 100 of the first task, 2 of the second, 300 of the third. The second is divided by the first's."""
    assert losses.num_rows_by_task(torch.tensor([100.0, 2.0, 300.0])).tolist() == [100.0, 100.0, 300.0]


def test_labels_out_of_range_name_their_task() -> None:
    labels = np.array([[1.0, 5.0], [0.0, -2.0], [NAN, NAN]])
    losses.check(labels, ("click", "spend"), KINDS)
    odd = labels.copy()
    odd[1, 0] = 3.0
    with pytest.raises(
        DataError, match=r"label click \(binary\): found 3 in 1 of 3 rows, expected 0, 1 or nan; correct"
    ):
        losses.check(odd, ("click", "spend"), KINDS)
    labels[1, 1] = math.inf
    with pytest.raises(
        DataError, match=r"label spend \(regression\): found inf in 1 of 3 rows, expected a finite number"
    ):
        losses.check(labels, ("click", "spend"), KINDS)


def test_uncertainty_by_hand() -> None:
    log_variance = torch.tensor([math.log(2), math.log(4), math.log(9)], requires_grad=True)
    shares = torch.tensor([6.0, 8.0, 0.0])
    present = torch.tensor([True, True, False])  # nobody has a label of the third task
    kinds = ("binary", "regression", "binary")
    part = losses.uncertainty_weighted(shares, log_variance, kinds, present, world_size=1)
    # 6 / 2 + log(2) / 2 for the binary task, 8 / 4 / 2 + log(4) / 2 for the regression
    assert float(part.detach()) == pytest.approx(3 + math.log(2) / 2 + 1 + math.log(4) / 2)
    halves = [losses.uncertainty_weighted(shares / 2, log_variance, kinds, present, world_size=2) for _ in range(2)]
    assert float(sum(halves)) == pytest.approx(float(part))
    part.backward()
    # d/ds of exp(-s) L + s / 2: no pull where exp(s) = 2 L, and none where there is no label
    assert log_variance.grad is not None
    assert log_variance.grad.tolist() == pytest.approx([0.5 - 3, 0.5 - 1, 0.0])
