"""PEPNet: the scenario scales the embedding (EPNet); candidate and history scale every hidden layer of every task
(PPNet). All weights are shared: a scenario costs one row of an embedding.

Reference: Chang et al. 2023, PEPNet: Parameter and Embedding Personalized Network.

Shape suffixes: B rows, T tasks, P prior, S scenario dimensions, X inputs, H hidden units.
"""

import torch
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.models.layers import SCENARIO_DIM, Encoded, Inputs, RowNoise, dropout
from recspark.models.rankers.spec import Spec


class PepNet(nn.Module):
    hides_scenarios = True

    def __init__(self, spec: Spec, num_inputs: int) -> None:
        super().__init__()
        self.drop = spec.dropout
        sizes, num_tasks = spec.hidden, len(spec.tasks)
        self.embedding_gate = Gate(SCENARIO_DIM + num_inputs, num_inputs)
        num_prior = 2 * spec.embedding_dim + num_inputs
        self.layer_gates = nn.ModuleList(Gate(num_prior, num_tasks * size) for size in sizes)
        widths = list(zip([num_inputs, *sizes], sizes, strict=False))
        self.linears = nn.ModuleList(nn.ModuleList(nn.Linear(a, b) for _ in spec.tasks) for a, b in widths)
        self.norms = nn.ModuleList(nn.ModuleList(nn.LayerNorm(size) for _ in spec.tasks) for size in sizes)
        self.heads = nn.ModuleList(nn.Linear(sizes[-1], 1) for _ in spec.tasks)

    def forward(self, rows: Encoded, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        # No gradient flows through the gates into the embeddings, as in the paper.
        x_BX = rows.x_BX * self.embedding_gate(torch.cat((rows.scenario_BS, rows.x_BX.detach()), dim=1))
        prior_BP = torch.cat((rows.item_BD, rows.history_BD, x_BX.detach()), dim=1)
        hidden: list[Tensor] = [x_BX for _ in self.heads]
        for layer, gate in enumerate(self.layer_gates):
            gates = gate(prior_BP).chunk(len(hidden), dim=1)
            hidden = [self._layer(layer, task, x_BH) * gates[task] for task, x_BH in enumerate(hidden)]
            hidden = [dropout(x_BH, self.drop, noise) for x_BH in hidden]
        return torch.cat([head(x_BH) for head, x_BH in zip(self.heads, hidden, strict=True)], dim=1)

    def _layer(self, layer: int, task: int, x_BH: Tensor) -> Tensor:
        linears, norms = self.linears[layer], self.norms[layer]
        assert isinstance(linears, nn.ModuleList) and isinstance(norms, nn.ModuleList)
        return torch.relu(norms[task](linears[task](x_BH)))

    def fit(self, scenario: Array, targets: Array) -> None:
        """No constants to set."""


class Gate(nn.Module):
    """The paper's Gate NU: two linear layers that give factors between 0 and 2; 1 leaves a unit unchanged."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(num_inputs, num_outputs), nn.Linear(num_outputs, num_outputs)

    def forward(self, x_BX: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.outer(torch.relu(self.inner(x_BX))))
