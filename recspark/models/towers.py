"""One tower per scenario, where each row runs only its own: rows are sorted by tower, multiplied group by group, and
put back in order.

The cost is that of one tower for any number of scenarios. All products are in one function, `grouped_matmul`.

Shape suffixes: B rows, G towers, S scenarios, X inputs, H outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recspark.arrays import Array
from recspark.models.layers import RowNoise, dropout


@dataclass(frozen=True)
class Groups:
    """The rows of a batch by tower. Sorted rows are those at `order_B`: by tower, then in the order of the batch."""

    order_B: Tensor
    place_B: Tensor  # the inverse: the sorted place of each row of the batch
    tower_B: Tensor  # of the sorted rows
    towers: tuple[int, ...]  # those present, ascending
    sizes: list[int]  # rows of each, none 0

    @staticmethod
    def of(tower_B: Tensor, num_towers: int) -> "Groups":
        sorted_B, order_B = torch.sort(tower_B, stable=True)
        place_B = torch.empty_like(order_B).scatter_(0, order_B, torch.arange(len(order_B), device=order_B.device))
        sizes = torch.bincount(sorted_B, minlength=num_towers).tolist()
        present = tuple(tower for tower, size in enumerate(sizes) if size)
        return Groups(order_B, place_B, sorted_B, present, [sizes[tower] for tower in present])

    def noise(self, noise: RowNoise | None) -> RowNoise | None:
        """The batch's dropout noise in the order of the sorted rows."""
        return None if noise is None else noise.sorted(self.order_B)


def grouped_matmul(x_BX: Tensor, weight_GXH: Tensor, bias_GH: Tensor, groups: Groups) -> Tensor:
    """Sorted rows times the weights of their tower, plus its bias: (B, H), sorted."""
    if not groups.towers:
        return x_BX.new_zeros(0, weight_GXH.shape[2])
    # unbind, not indexing: its gradient is written once, that of indexing is a whole tensor for each tower
    weights, biases = weight_GXH.unbind(0), bias_GH.unbind(0)
    parts = zip(groups.towers, torch.split(x_BX, groups.sizes), strict=True)
    return torch.cat([torch.addmm(biases[tower], part_BX, weights[tower]) for tower, part_BX in parts])


class GroupedLinear(nn.Module):
    """One linear layer per tower."""

    def __init__(self, num_towers: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        bound = num_inputs**-0.5  # as nn.Linear
        self.weight_GXH = nn.Parameter(torch.empty(num_towers, num_inputs, num_outputs).uniform_(-bound, bound))
        self.bias_GH = nn.Parameter(torch.empty(num_towers, num_outputs).uniform_(-bound, bound))

    def forward(self, x_BX: Tensor, groups: Groups) -> Tensor:
        """Sorted rows in, sorted rows out."""
        return grouped_matmul(x_BX, self.weight_GXH, self.bias_GH, groups)


class GroupedMlp(nn.Module):
    """One `Mlp` per tower: linear, LayerNorm, ReLU, dropout."""

    def __init__(self, num_towers: int, num_inputs: int, sizes: Sequence[int], drop: float) -> None:
        super().__init__()
        self.drop = drop
        widths = zip([num_inputs, *sizes], sizes, strict=False)
        self.linears = nn.ModuleList(GroupedLinear(num_towers, a, b) for a, b in widths)
        self.scales_GH = nn.ParameterList(torch.ones(num_towers, size) for size in sizes)
        self.shifts_GH = nn.ParameterList(torch.zeros(num_towers, size) for size in sizes)

    def forward(self, x_BX: Tensor, groups: Groups, noise: RowNoise | None = None) -> Tensor:
        """Sorted rows and noise in, sorted rows out."""
        for linear, scale_GH, shift_GH in zip(self.linears, self.scales_GH, self.shifts_GH, strict=True):
            x_BX = dropout(torch.relu(grouped_norm(linear(x_BX, groups), scale_GH, shift_GH, groups)), self.drop, noise)
        return x_BX


def grouped_norm(x_BH: Tensor, scale_GH: Tensor, shift_GH: Tensor, groups: Groups) -> Tensor:
    """LayerNorm of sorted rows with the scale and shift of their tower."""
    if not groups.towers:
        return x_BH
    scales, shifts = scale_GH.unbind(0), shift_GH.unbind(0)
    parts = zip(groups.towers, torch.split(x_BH, groups.sizes), strict=True)
    return torch.cat([F.layer_norm(part_BH, part_BH.shape[1:], scales[at], shifts[at]) for at, part_BH in parts])


class Router(nn.Module):
    """Scenario -> tower: s + 1 for scenario s, 0 for all scenarios without training rows."""

    tower_S: Tensor

    def __init__(self, num_scenarios: int) -> None:
        super().__init__()
        self.num_towers = num_scenarios + 1
        self.register_buffer("tower_S", torch.zeros(num_scenarios, dtype=torch.int64))

    @torch.no_grad()
    def fit(self, scenario: Array) -> None:
        """Give a tower to each scenario of the training rows."""
        present = torch.from_numpy(np.unique(scenario).astype(np.int64))
        self.tower_S[present] = present + 1

    def forward(self, scenario_B: Tensor) -> Groups:
        known_B = scenario_B < len(self.tower_S)
        return Groups.of(self.tower_S[torch.where(known_B, scenario_B, 0)] * known_B, self.num_towers)
