"""What the rankers minimise.

Binary tasks: cross-entropy of the logit. Regressions: Huber on the standardised sign(y) log(1 + |y|), because spend is
heavy-tailed and signed. NaN means no label: the row counts for the other tasks only. A task without any label adds
nothing to the loss.

Shape suffixes: B rows, T tasks.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recspark.arrays import Array
from recspark.errors import DataError


def check(labels: Array, names: Sequence[str], kinds: Sequence[str]) -> None:
    """Raises DataError when a label (n, T) of a binary task is neither 0 nor 1 nor NaN, or any is infinite."""
    for task, (name, kind) in enumerate(zip(names, kinds, strict=True)):
        column = labels[:, task]
        fits = np.isin(column, (0, 1)) if kind == "binary" else np.isfinite(column)
        odd = column[~(fits | np.isnan(column))]
        if len(odd):
            expected = "0, 1 or nan" if kind == "binary" else "a finite number or nan"
            raise DataError(
                f"label {name} ({kind}): found {odd[0]:g} in {len(odd)} of {len(labels)} rows, expected {expected}; "
                "correct the task's sql in training_examples.tasks"
            )


def targets(labels: Array, kinds: Sequence[str]) -> Array:
    """Labels (n, T) as the loss sees them: regressions on the log scale, float32, NaN kept."""
    out = labels.astype(np.float32)
    for task, kind in enumerate(kinds):
        if kind == "regression":
            out[:, task] = np.sign(labels[:, task]) * np.log1p(np.abs(labels[:, task]))
    return out


def sums(
    logits_BT: Tensor, targets_BT: Tensor, weights_B: Tensor, kinds: Sequence[str], mean_T: Tensor, std_T: Tensor
) -> tuple[Tensor, Tensor]:
    """(T,) weighted sums of losses and (T,) sums of weights: sums, so that ranks can be added before dividing."""
    known_BT = torch.isfinite(targets_BT)
    filled_BT = torch.where(known_BT, targets_BT, 0.0)
    weights_BT = weights_B.unsqueeze(1) * known_BT
    losses = []
    for task, kind in enumerate(kinds):
        logit_B, target_B = logits_BT[:, task], filled_BT[:, task]
        if kind == "binary":
            losses.append(F.binary_cross_entropy_with_logits(logit_B, target_B, reduction="none"))
        else:
            losses.append(F.huber_loss(logit_B, (target_B - mean_T[task]) / std_T[task], reduction="none"))
    return (torch.stack(losses, dim=1) * weights_BT).sum(dim=0), weights_BT.sum(dim=0)


def num_rows_by_task(weights_T: Tensor) -> Tensor:
    """What each task's loss sum is divided by: its labelled rows, but never fewer than the first task's.

    Otherwise a task with a label in one row of a hundred (what a buyer spent) would weigh as much as the task that
    ranks, with a hundredth of the rows.
    """
    return torch.maximum(weights_T, weights_T[0])


def uncertainty_weighted(
    losses_T: Tensor, log_variance_T: Tensor, kinds: Sequence[str], present_T: Tensor, world_size: int
) -> Tensor:
    """This rank's part of the tasks' losses, weighted by their learnt noise.

    With s = log variance: exp(-s) L + s / 2 for a binary task, exp(-s) L / 2 + s / 2 for a regression.
    `losses_T`: this rank's shares of the normalised losses; `present_T` bool: tasks with a label in the batch.

    Reference: Kendall et al. 2018, Multi-Task Learning Using Uncertainty to Weigh Losses.
    """
    halves_T = torch.tensor([1.0 if kind == "binary" else 0.5 for kind in kinds], device=losses_T.device)
    weighted_T = halves_T * torch.exp(-log_variance_T) * losses_T
    return (weighted_T + present_T * log_variance_T / 2 / world_size).sum()
