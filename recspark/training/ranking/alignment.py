"""Penalties that make the hidden layers of a target scenario and its sources alike.

They read the output of the ranker's `bottom`; a ranker without one (its layers belong to tasks or scenarios) is
refused. On several ranks each rank's rows have their own penalty, and the mean of those counts.

Shape suffixes: B rows, H hidden units, N rows of the target, M of the sources.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from recspark.errors import ConfigError
from recspark.models.rankers.network import Network
from recspark.training.feed.feed import Batch
from recspark.training.ranking.job import SCENARIO_AT
from recspark.training.ranking.loop import Extras

STRENGTH = 1.0  # of the discrepancy in the loss
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels, times the mean squared distance
MMD_ROWS = 512  # of each side at most: the cost is their product

HiddenLayer: TypeAlias = Callable[[], Tensor]  # (B, H) of the batch that has just passed through the network


def bottom(network: Network) -> nn.Module:
    """Raises ConfigError when the ranker has no hidden layer that all tasks and scenarios share."""
    found: nn.Module | None = getattr(network.body, "bottom", None)
    if found is None:
        raise ConfigError(
            f"ranker.transfer: mmd needs a hidden layer that all scenarios share; ranker.model "
            f"{network.spec.model} has none, shared_bottom and attention do"
        )
    return found


@contextmanager
def recorded_hidden_layer(network: Network) -> Iterator[HiddenLayer]:
    """Gives the hidden layer of the last batch while it is open."""
    last: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, hidden_BH: Tensor) -> None:
        last[:] = [hidden_BH]

    handle = bottom(network).register_forward_hook(keep)
    try:
        yield lambda: last[0]
    finally:
        handle.remove()


def mmd(hidden: HiddenLayer, target: int | None) -> Extras:
    """The maximum mean discrepancy of the hidden layers, as a part of the loss."""

    def penalty(batch: Batch, step: int) -> Tensor:
        hidden_BH = hidden()
        target_B, weight_B = _sides(batch, target, hidden_BH.device)
        sides = (hidden_BH[target_B & (weight_B > 0)], hidden_BH[~target_B & (weight_B > 0)])
        return STRENGTH * discrepancy(*(side[:MMD_ROWS] for side in sides))

    return Extras(penalty=penalty)


def discrepancy(x_NH: Tensor, y_MH: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples, with a mean of Gaussian kernels of several widths: the unbiased
    estimate, 0 if a side has fewer than two rows.

    Reference: Gretton et al. 2012, A Kernel Two-Sample Test.
    """
    n, m = len(x_NH), len(y_MH)
    if min(n, m) < 2:
        return 0.0 * (x_NH.sum() + y_MH.sum())
    both = torch.cat((x_NH, y_MH))
    squares = both.square().sum(dim=1)
    distance = (squares[:, None] + squares[None, :] - 2 * both @ both.T).clamp_min(0.0)
    scale = distance.detach().mean().clamp_min(1e-12)
    kernel = torch.stack([torch.exp(-distance / (width * scale)) for width in WIDTHS]).mean(dim=0)
    within_x = (kernel[:n, :n].sum() - kernel[:n, :n].diagonal().sum()) / (n * (n - 1))
    within_y = (kernel[n:, n:].sum() - kernel[n:, n:].diagonal().sum()) / (m * (m - 1))
    return within_x + within_y - 2 * kernel[:n, n:].mean()


def _sides(batch: Batch, target: int | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """bool (B,) of the target's rows, and float32 (B,) weights by which each side counts half; 0 if one is empty."""
    is_target, counted = batch.ints[:, SCENARIO_AT] == target, batch.weights > 0
    weights = np.zeros(len(counted), np.float32)
    sides = [side & counted for side in (is_target, ~is_target)]
    if all(side.any() for side in sides):
        for side in sides:
            weights[side] = 0.5 / side.sum()
    return torch.from_numpy(is_target).to(device), torch.from_numpy(weights).to(device)
