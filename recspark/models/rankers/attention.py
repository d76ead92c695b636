"""Target attention over the user's recent events, on top of a shared bottom.

A small network of event, candidate and their product gives every event a weight; the weights are not normalised, so
that many events of one kind count more than one.
Reference: Zhou et al. 2018, Deep Interest Network.

Shape suffixes: B rows, L history length, U distinct items, D embedding dimensions, A units of the attention network.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recspark.arrays import Array
from recspark.models.layers import Encoded, Inputs, Mlp, RowNoise
from recspark.models.rankers.shared_bottom import ScenarioHead
from recspark.models.rankers.spec import Spec

UNITS = 16


class Attention(nn.Module):
    hides_scenarios = False
    weights_read = ("product",)  # forward reads the weights of this layer, so int8.py leaves it in float32

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        dim = spec.embedding_dim
        self.event, self.candidate = nn.Linear(dim, UNITS, bias=False), nn.Linear(dim, UNITS)
        self.product = nn.Linear(dim, UNITS, bias=False)
        self.place = nn.Embedding(spec.history_length, UNITS)
        self.weight = nn.Linear(UNITS, 1)
        nn.init.zeros_(self.place.weight)
        self.bottom = Mlp(num_inputs + 2 * dim, spec.hidden, spec.dropout)
        self.head = ScenarioHead(spec.hidden[-1], len(spec.tasks), spec.num_scenarios)

    def forward(self, rows: Encoded, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        attended_BD = self.attend(rows, x)
        x_BX = torch.cat((rows.x_BX, attended_BD, attended_BD * rows.item_BD), dim=1)
        logits_BT: Tensor = self.head(self.bottom(x_BX, noise), x.scenario_B)
        return logits_BT

    def attend(self, rows: Encoded, x: Inputs) -> Tensor:
        """The weighted sum of the events' vectors (B, D), zeros without history."""
        length = x.history_BL.shape[1]
        events_BLD = F.embedding(x.history_BL, rows.vectors_UD)
        # The network's first layer in parts: that of the events is computed once per distinct item, or once per user.
        if x.user_B is None:
            hidden_BLA = F.embedding(x.history_BL, self.event(rows.vectors_UD))
        else:
            hidden_BLA = self.event(events_BLD)
        hidden_BLA, events_BLD = x.per_row(hidden_BLA + self.place.weight[:length]), x.per_row(events_BLD)
        product_BDA = rows.item_BD.unsqueeze(2) * self.product.weight.T
        hidden_BLA = hidden_BLA + self.candidate(rows.item_BD).unsqueeze(1) + events_BLD @ product_BDA
        weight_BL: Tensor = self.weight(torch.relu(hidden_BLA)).squeeze(2) * x.per_row(x.history_BL > 0)
        return (weight_BL.unsqueeze(1) @ events_BLD).squeeze(1)

    def fit(self, scenario: Array, targets: Array) -> None:
        self.head.fit(scenario, targets)
