"""One tower per scenario: nothing between the encoder and the score is shared. The baseline of the sharing rankers.

Scenarios without training rows share one more tower, which learns from rows of the others whose scenario is hidden. The
table of item ids is shared: one copy per scenario would not fit into memory.
"""

import numpy as np
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, RowNoise
from recspark.models.rankers.spec import Spec
from recspark.models.towers import GroupedLinear, GroupedMlp, Router


class Single(nn.Module):
    hides_scenarios = True

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        self.router = Router(spec.num_scenarios)
        self.towers = GroupedMlp(self.router.num_towers, num_inputs, spec.hidden, spec.dropout)
        self.heads = GroupedLinear(self.router.num_towers, spec.hidden[-1], len(spec.tasks))

    def forward(self, rows: Encoded, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        groups = self.router(x.scenario_B)
        hidden_BH = self.towers(rows.x_BX[groups.order_B], groups, groups.noise(noise))
        logits_BT: Tensor = self.heads(hidden_BH, groups)
        return logits_BT[groups.place_B]

    def fit(self, scenario: Array, targets: Array) -> None:
        self.router.fit(scenario[np.isfinite(targets).any(axis=1)])
