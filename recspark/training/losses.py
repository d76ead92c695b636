"""What the rankers minimise.

Binary tasks: cross-entropy of the logit. Regressions: Huber on the standardised sign(y) log(1 + |y|), because spend is
heavy-tailed and signed. A nan label is no label: the row counts for the other tasks only.

Shape suffixes: B rows, T tasks.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def targets(labels: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """Labels (n, T) as the loss sees them: regressions on the log scale, float32, nan kept."""
    out = labels.astype(np.float32)
    for task, kind in enumerate(kinds):
        if kind == "regression":
            out[:, task] = np.sign(labels[:, task]) * np.log1p(np.abs(labels[:, task]))
    return out


def sums(
    logits_BT: Tensor, targets_BT: Tensor, weights_B: Tensor, kinds: Sequence[str], mean_T: Tensor, std_T: Tensor
) -> tuple[Tensor, Tensor]:
    """(T,) weighted loss sums and (T,) weight sums. Sums, so that ranks can be added before dividing."""
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
