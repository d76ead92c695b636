"""The shared-bottom ranker: one perceptron for all scenarios and tasks, a head per task that each scenario may bend.

Shape suffixes: B rows, T tasks, S scenarios, H hidden units; the others are in recspark/models/layers.py.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from recspark.models.layers import FeatureEncoder, Inputs, Mlp, RowNoise, missing_features

SHRINKAGE = 100.0  # positives that the shared head counts for against a scenario's own


@dataclass(frozen=True)
class Spec:
    """What it takes to rebuild the model; goes into the manifest as JSON."""

    features: tuple[str, ...]
    tasks: tuple[str, ...]  # the first one ranks
    kinds: tuple[str, ...]  # binary | regression, per task
    num_items: int  # item_idx in training are below this
    num_scenarios: int
    num_missing: int
    content_dim: int
    embedding_dim: int
    hidden: tuple[int, ...]
    history_length: int
    dropout: float


class SharedBottom(nn.Module):
    """Logits of all tasks: (B, T); a regression's is its standardised target."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = FeatureEncoder(
            len(spec.features),
            spec.num_missing,
            spec.num_items,
            spec.num_scenarios,
            spec.content_dim,
            spec.embedding_dim,
        )
        self.bottom = Mlp(self.encoder.dim, spec.hidden, spec.dropout)
        width, num_tasks = spec.hidden[-1], len(spec.tasks)
        self.head = nn.Linear(width, num_tasks)
        self.scenario_head = nn.Embedding(spec.num_scenarios, num_tasks * (width + 1))
        nn.init.zeros_(self.scenario_head.weight)
        # How far a scenario may bend the shared head, 0..1; see fit(). Unseen scenarios: not at all.
        self.register_buffer("trust_S", torch.zeros(spec.num_scenarios))
        self.register_buffer("target_mean_T", torch.zeros(num_tasks))
        self.register_buffer("target_std_T", torch.ones(num_tasks))

    def forward(self, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        hidden_BH = self.bottom(self.encoder(x, noise), noise)
        return self.head(hidden_BH) + self._scenario_part(hidden_BH, x.scenario_B)

    def _scenario_part(self, hidden_BH: Tensor, scenario_B: Tensor) -> Tensor:
        known_B = scenario_B < self.spec.num_scenarios
        scenario_B = torch.where(known_B, scenario_B, 0)
        bend = self.scenario_head(scenario_B).view(len(scenario_B), len(self.spec.tasks), -1)
        part_BT = (bend[:, :, :-1] @ hidden_BH.unsqueeze(2)).squeeze(2) + bend[:, :, -1]
        return part_BT * (self.trust_S[scenario_B] * known_B).unsqueeze(1)

    @torch.no_grad()
    def fit(self, dense: np.ndarray, scenario: np.ndarray, targets: np.ndarray) -> None:
        """Constants from a sample of training rows: quantiles, targets' mean and spread, trust per scenario.

        `dense` (n, F), `scenario` (n,), `targets` (n, T) as the loss sees them, nan = no label. Trust = p / (p + 100)
        for p positives: the empirical-Bayes weight of an estimate from p observations against a prior worth 100.
        """
        self.encoder.normaliser.fit(dense)
        for task, kind in enumerate(self.spec.kinds):
            known = targets[np.isfinite(targets[:, task]), task]
            if kind == "regression" and len(known) > 1:
                self.target_mean_T[task], self.target_std_T[task] = float(known.mean()), float(max(known.std(), 1e-6))
        positives = np.bincount(scenario[targets[:, 0] > 0], minlength=self.spec.num_scenarios)
        self.trust_S.copy_(torch.from_numpy(positives / (positives + SHRINKAGE)))


def build(spec: Spec, seed: int) -> SharedBottom:
    """Seeded initial weights; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SharedBottom(spec)


def num_missing(dense: np.ndarray) -> int:
    """How many missing-indicators a sample asks for; see Spec."""
    return len(missing_features(dense))
