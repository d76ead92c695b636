"""STAR, the star topology: a scenario's weights are the shared ones times its own, its biases the sum of both; the
logits of a shared auxiliary network are added.

The paper's partitioned normalisation uses batch statistics, so a score would depend on its batch. Here it is a
LayerNorm whose scale is the product, and whose shift is the sum, of shared and own.
Reference: Sheng et al. 2021, One Model to Serve All: Star Topology Adaptive Recommender (STAR).

Shape suffixes: B rows, G towers, X inputs, H outputs.
"""

import numpy as np
import torch
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, Mlp, RowNoise, dropout
from recspark.models.rankers.spec import Spec
from recspark.models.towers import Groups, Router, grouped_matmul, grouped_norm


class Star(nn.Module):
    hides_scenarios = True

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        self.drop = spec.dropout
        self.router = Router(spec.num_scenarios)
        num_towers, num_tasks, sizes = self.router.num_towers, len(spec.tasks), spec.hidden
        widths = zip([num_inputs, *sizes], sizes, strict=False)
        self.linears = nn.ModuleList(StarLinear(num_towers, a, b) for a, b in widths)
        self.norms = nn.ModuleList(StarNorm(num_towers, size) for size in sizes)
        self.head = StarLinear(num_towers, sizes[-1], num_tasks)
        self.auxiliary = Mlp(num_inputs, sizes[-1:], spec.dropout)
        self.auxiliary_head = nn.Linear(sizes[-1], num_tasks)

    def forward(self, rows: Encoded, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        groups = self.router(x.scenario_B)
        hidden_BH = rows.x_BX[groups.order_B]
        for linear, norm in zip(self.linears, self.norms, strict=True):
            hidden_BH = torch.relu(norm(linear(hidden_BH, groups), groups))
            hidden_BH = dropout(hidden_BH, self.drop, groups.noise(noise))
        sorted_BT: Tensor = self.head(hidden_BH, groups)
        auxiliary_BT: Tensor = self.auxiliary_head(self.auxiliary(rows.x_BX, noise))
        return sorted_BT[groups.place_B] + auxiliary_BT

    def fit(self, scenario: Array, targets: Array) -> None:
        self.router.fit(scenario[np.isfinite(targets).any(axis=1)])


class StarLinear(nn.Module):
    def __init__(self, num_towers: int, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.shared = nn.Linear(num_inputs, num_outputs)
        self.own_weight_GXH = nn.Parameter(torch.ones(num_towers, num_inputs, num_outputs))
        self.own_bias_GH = nn.Parameter(torch.zeros(num_towers, num_outputs))

    @property
    def weight_GXH(self) -> Tensor:
        return self.shared.weight.T * self.own_weight_GXH

    @property
    def bias_GH(self) -> Tensor:
        return self.shared.bias + self.own_bias_GH

    def forward(self, x_BX: Tensor, groups: Groups) -> Tensor:
        """Sorted rows in, sorted rows out."""
        return grouped_matmul(x_BX, self.weight_GXH, self.bias_GH, groups)


class StarNorm(nn.Module):
    def __init__(self, num_towers: int, size: int) -> None:
        super().__init__()
        self.scale_H, self.shift_H = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))
        self.own_scale_GH = nn.Parameter(torch.ones(num_towers, size))
        self.own_shift_GH = nn.Parameter(torch.zeros(num_towers, size))

    def forward(self, x_BH: Tensor, groups: Groups) -> Tensor:
        """Sorted rows in, sorted rows out."""
        return grouped_norm(x_BH, self.scale_H * self.own_scale_GH, self.shift_H + self.own_shift_GH, groups)
