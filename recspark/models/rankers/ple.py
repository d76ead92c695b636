"""Progressive layered extraction, with scenarios instead of the paper's tasks.

Each level has experts that all scenarios share and one expert per scenario; a row runs only that of its own scenario.
In the last level every task of every scenario has a gate over them. There is one level for each hidden size but the
last.
Reference: Tang et al. 2020, Progressive Layered Extraction (PLE): A Novel Multi-Task Learning Model.

Shape suffixes: B rows, T tasks, E experts, H hidden units. All rows of the body are sorted by scenario.
"""

import numpy as np
import torch
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, Mlp, RowNoise
from recspark.models.rankers.mmoe import TaskTowers
from recspark.models.rankers.spec import Spec
from recspark.models.towers import GroupedLinear, GroupedMlp, Groups, Router

NUM_SHARED = 3


class Ple(nn.Module):
    hides_scenarios = True

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        sizes = spec.hidden[:-1] or spec.hidden  # the last layer belongs to the tasks
        self.router = Router(spec.num_scenarios)
        num_towers = self.router.num_towers
        widths = list(zip([num_inputs, *sizes], sizes, strict=False))
        self.levels = nn.ModuleList(Level(num_towers, a, b, spec.dropout) for a, b in widths)
        # These gates make the inputs of the next level's shared and own experts; the last level has the tasks' gates.
        self.shared_gates = nn.ModuleList(nn.Linear(a, NUM_SHARED + 1) for a, _ in widths[:-1])
        self.own_gates = nn.ModuleList(GroupedLinear(num_towers, a, NUM_SHARED + 1) for a, _ in widths[:-1])
        self.task_gates = GroupedLinear(num_towers, widths[-1][0], len(spec.tasks) * (NUM_SHARED + 1))
        self.towers = TaskTowers(spec, sizes[-1])

    def forward(self, rows: Encoded, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        groups = self.router(x.scenario_B)
        noise = groups.noise(noise)
        shared_BX = own_BX = rows.x_BX[groups.order_B]
        for level, shared_gate, own_gate in zip(self.levels, self.shared_gates, self.own_gates, strict=False):
            experts_BEH = level(shared_BX, own_BX, groups, noise)
            shared_BE, own_BE = shared_gate(shared_BX), own_gate(own_BX, groups)
            shared_BX, own_BX = (
                _mix(shared_BE.unsqueeze(1), experts_BEH)[:, 0],
                _mix(own_BE.unsqueeze(1), experts_BEH)[:, 0],
            )
        experts_BEH = self.levels[-1](shared_BX, own_BX, groups, noise)
        gates_BTE = self.task_gates(own_BX, groups).unflatten(1, (-1, NUM_SHARED + 1))
        logits_BT: Tensor = self.towers(_mix(gates_BTE, experts_BEH), noise)
        return logits_BT[groups.place_B]

    def fit(self, scenario: Array, targets: Array) -> None:
        self.router.fit(scenario[np.isfinite(targets).any(axis=1)])


class Level(nn.Module):
    """The experts of one level: the shared ones, then the scenario's own."""

    def __init__(self, num_towers: int, num_inputs: int, size: int, drop: float) -> None:
        super().__init__()
        self.shared = nn.ModuleList(Mlp(num_inputs, [size], drop) for _ in range(NUM_SHARED))
        self.own = GroupedMlp(num_towers, num_inputs, [size], drop)

    def forward(self, shared_BX: Tensor, own_BX: Tensor, groups: Groups, noise: RowNoise | None) -> Tensor:
        """(B, E, H)"""
        experts = [expert(shared_BX, noise) for expert in self.shared]
        return torch.stack([*experts, self.own(own_BX, groups, noise)], dim=1)


def _mix(gates_BTE: Tensor, experts_BEH: Tensor) -> Tensor:
    return torch.softmax(gates_BTE, dim=2) @ experts_BEH
