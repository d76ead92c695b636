"""The shared-bottom ranker: one perceptron for all scenarios and tasks, and a head per task with a correction for each
scenario.

Reference: Caruana 1997, Multitask Learning.

Shape suffixes: B rows, T tasks, S scenarios, H hidden units; the others are in recspark/models/layers.py.
"""

import numpy as np
import torch
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, Mlp, RowNoise
from recspark.models.rankers.spec import Spec

SHRINKAGE = 100.0  # positives at which a scenario's own head counts half


class SharedBottom(nn.Module):
    hides_scenarios = False

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        self.bottom = Mlp(num_inputs, spec.hidden, spec.dropout)
        self.head = ScenarioHead(spec.hidden[-1], len(spec.tasks), spec.num_scenarios)

    def forward(self, rows: Encoded, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        logits_BT: Tensor = self.head(self.bottom(rows.x_BX, noise), x.scenario_B)
        return logits_BT

    def fit(self, scenario: Array, targets: Array) -> None:
        self.head.fit(scenario, targets)


class ScenarioHead(nn.Module):
    """One linear head for all scenarios, plus each scenario's own, weighted by the size of its data."""

    trust_S: Tensor

    def __init__(self, num_inputs: int, num_tasks: int, num_scenarios: int) -> None:
        super().__init__()
        self.num_tasks = num_tasks
        self.shared = nn.Linear(num_inputs, num_tasks)
        self.own = nn.Embedding(num_scenarios, num_tasks * (num_inputs + 1))
        nn.init.zeros_(self.own.weight)
        # the weight of each scenario's own head, 0..1, see fit(); 0 for unknown scenarios
        self.register_buffer("trust_S", torch.zeros(num_scenarios))

    def forward(self, hidden_BH: Tensor, scenario_B: Tensor) -> Tensor:
        known_B = scenario_B < len(self.trust_S)
        scenario_B = torch.where(known_B, scenario_B, 0)
        own = self.own(scenario_B).view(len(scenario_B), self.num_tasks, -1)
        own_BT = (own[:, :, :-1] @ hidden_BH.unsqueeze(2)).squeeze(2) + own[:, :, -1]
        logits_BT: Tensor = self.shared(hidden_BH) + own_BT * (self.trust_S[scenario_B] * known_B).unsqueeze(1)
        return logits_BT

    @torch.no_grad()
    def fit(self, scenario: Array, targets: Array) -> None:
        """Set trust = p / (p + 100) for p positives of the first task: the empirical-Bayes weight of an estimate from
        p observations beside a prior worth 100."""
        positives = np.bincount(scenario[targets[:, 0] > 0], minlength=len(self.trust_S))
        self.trust_S.copy_(torch.from_numpy(positives / (positives + SHRINKAGE)))
