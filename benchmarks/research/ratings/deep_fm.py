"""DeepFM: the probability of a label from categorical fields, by a factorisation machine and a small network that share
their embeddings.

Shapes: N rows, F fields, D embedding dimensions.
Reference: Guo et al. 2017, DeepFM.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import log_loss
from torch import nn

PATIENCE = 2  # epochs


@dataclass(frozen=True)
class Settings:
    dim: int = 16
    hidden: tuple[int, ...] = (64, 32)
    dropout: float = 0.2
    l2: float = 1e-5
    learning_rate: float = 2e-3
    batch_rows: int = 4096
    max_epochs: int = 15


class DeepFM(nn.Module):
    """Logits (N,) of codes (N, F); field f has codes 0..sizes[f]-1."""

    def __init__(self, sizes: tuple[int, ...], settings: Settings) -> None:
        super().__init__()
        self.register_buffer("offsets_F", torch.tensor((0, *sizes[:-1])).cumsum(0))
        self.linear = nn.Embedding(sum(sizes), 1)
        self.embedding = nn.Embedding(sum(sizes), settings.dim)
        self.bias = nn.Parameter(torch.zeros(()))
        nn.init.zeros_(self.linear.weight)
        nn.init.normal_(self.embedding.weight, std=0.05)
        layers: list[nn.Module] = []
        width = len(sizes) * settings.dim
        for size in settings.hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), nn.Dropout(settings.dropout)]
            width = size
        self.network = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, codes_NF: torch.Tensor) -> torch.Tensor:
        rows_NF = codes_NF + self.offsets_F
        x_NFD = self.embedding(rows_NF)
        pairs_N = 0.5 * (x_NFD.sum(dim=1).square() - x_NFD.square().sum(dim=1)).sum(dim=1)
        deep_N = self.network(x_NFD.flatten(1))[:, 0]
        return self.bias + self.linear(rows_NF).sum(dim=(1, 2)) + pairs_N + deep_N


@torch.random.fork_rng(devices=[])
def fit(
    codes_NF: np.ndarray,
    labels: np.ndarray,
    valid: tuple[np.ndarray, np.ndarray],
    sizes: tuple[int, ...],
    settings: Settings,
    seed: int,
) -> DeepFM:
    """Learn labels 0 / 1 (N,) by Adam and keep the epoch with the lowest log loss on `valid` (codes, labels).

    The state of torch's global random generator is not changed.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model, codes, y = DeepFM(sizes, settings), torch.from_numpy(codes_NF), torch.from_numpy(labels).float()
    adam = torch.optim.Adam(model.parameters(), settings.learning_rate, weight_decay=settings.l2)
    best, kept, waited = np.inf, copy.deepcopy(model.state_dict()), 0
    for _ in range(settings.max_epochs):
        model.train()
        for at in torch.from_numpy(rng.permutation(len(y))).split(settings.batch_rows):
            adam.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(model(codes[at]), y[at]).backward()
            adam.step()
        figure = log_loss(valid[1], predict(model, valid[0]).astype(np.float64), labels=(0, 1))
        waited = 0 if figure < best else waited + 1
        if figure < best:
            best, kept = figure, copy.deepcopy(model.state_dict())
        if waited == PATIENCE:
            break
    model.load_state_dict(kept)
    return model


@torch.inference_mode()
def predict(model: DeepFM, codes_NF: np.ndarray) -> np.ndarray:
    """Probabilities float32 (N,)."""
    model.eval()
    return torch.cat([model(part).sigmoid() for part in torch.from_numpy(codes_NF).split(65536)]).numpy()
