"""Multi-gate mixture of experts: every task of every scenario has a gate that mixes the same experts.

Reference: Ma et al. 2018, Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts.

Shape suffixes: B rows, T tasks, E experts, H hidden units.
"""

import numpy as np
import torch
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, Mlp, RowNoise
from recspark.models.rankers.spec import Spec
from recspark.models.towers import GroupedLinear, Router

NUM_EXPERTS = 4


class MMoE(nn.Module):
    hides_scenarios = True

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        sizes = spec.hidden[:-1] or spec.hidden  # the last layer belongs to the tasks
        self.router = Router(spec.num_scenarios)
        self.experts = nn.ModuleList(Mlp(num_inputs, sizes, spec.dropout) for _ in range(NUM_EXPERTS))
        self.gates = GroupedLinear(self.router.num_towers, num_inputs, len(spec.tasks) * NUM_EXPERTS)
        self.towers = TaskTowers(spec, sizes[-1])

    def forward(self, rows: Encoded, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        groups = self.router(x.scenario_B)
        gates_BTE = self.gates(rows.x_BX[groups.order_B], groups)[groups.place_B].unflatten(1, (-1, NUM_EXPERTS))
        experts_BEH = torch.stack([expert(rows.x_BX, noise) for expert in self.experts], dim=1)
        logits_BT: Tensor = self.towers(torch.softmax(gates_BTE, dim=2) @ experts_BEH, noise)
        return logits_BT

    def fit(self, scenario: Array, targets: Array) -> None:
        self.router.fit(scenario[np.isfinite(targets).any(axis=1)])


class TaskTowers(nn.Module):
    """For each task a perceptron of the last hidden size, if there are several sizes, and a logit."""

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        sizes = spec.hidden[-1:] if len(spec.hidden) > 1 else ()
        self.towers = nn.ModuleList(Mlp(num_inputs, sizes, spec.dropout) for _ in spec.tasks)
        self.heads = nn.ModuleList(nn.Linear(spec.hidden[-1], 1) for _ in spec.tasks)

    def forward(self, x_BTH: Tensor, noise: RowNoise | None) -> Tensor:
        parts = zip(self.towers, self.heads, x_BTH.unbind(1), strict=True)
        return torch.cat([head(tower(x_BH, noise)) for tower, head, x_BH in parts], dim=1)
