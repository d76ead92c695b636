"""The shared-bottom ranker (Caruana 1997, Multitask Learning): one perceptron for all scenarios and tasks, a head per
task that each scenario may bend.

Shape suffixes: B rows, T tasks, S scenarios, H hidden units; the others are in recspark/models/layers.py.
"""

import numpy as np
import torch
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, Mlp, RowNoise
from recspark.models.rankers.spec import Spec

SHRINKAGE = 100.0  # positives that the shared head counts for against a scenario's own


class SharedBottom(nn.Module):
    hides_scenarios = False

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        self.bottom = Mlp(num_inputs, spec.hidden, spec.dropout)
        self.head = BentHead(spec.hidden[-1], len(spec.tasks), spec.num_scenarios)

    def forward(self, rows: Encoded, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        return self.head(self.bottom(rows.x_BX, noise), x.scenario_B)

    def fit(self, scenario: Array, targets: Array) -> None:
        self.head.fit(scenario, targets)


class BentHead(nn.Module):
    """One linear head for all scenarios, plus each scenario's own as far as its data can be trusted."""

    def __init__(self, num_inputs: int, num_tasks: int, num_scenarios: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.shared = nn.Linear(num_inputs, num_tasks)
        self.own = nn.Embedding(num_scenarios, num_tasks * (num_inputs + 1))
        nn.init.zeros_(self.own.weight)
        # How far a scenario may bend the shared head, 0..1; see fit(). Unseen scenarios: not at all.
        self.register_buffer("trust_S", torch.zeros(num_scenarios))

    def forward(self, hidden_BH: Tensor, scenario_B: Tensor) -> Tensor:
        known_B = scenario_B < len(self.trust_S)
        scenario_B = torch.where(known_B, scenario_B, 0)
        bend = self.own(scenario_B).view(len(scenario_B), self.num_tasks, -1)
        part_BT = (bend[:, :, :-1] @ hidden_BH.unsqueeze(2)).squeeze(2) + bend[:, :, -1]
        return self.shared(hidden_BH) + part_BT * (self.trust_S[scenario_B] * known_B).unsqueeze(1)

    @torch.no_grad()
    def fit(self, scenario: Array, targets: Array) -> None:
        """Trust = p / (p + 100) for p positives of the first task: the empirical-Bayes weight of an estimate from p
        observations against a prior worth 100."""
        positives = np.bincount(scenario[targets[:, 0] > 0], minlength=len(self.trust_S))
        self.trust_S.copy_(torch.from_numpy(positives / (positives + SHRINKAGE)))
