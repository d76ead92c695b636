"""A torch ranker: the feature encoder, the body of the configured model, optional cross layers, and the funnel.

Shape suffixes: B rows, T tasks; the others are in recspark/models/layers.py.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from recspark.arrays import Array
from recspark.models.given_encoder import GivenEncoder
from recspark.models.layers import Cross, FeatureEncoder, Inputs, RowNoise
from recspark.models.normaliser import missing_features
from recspark.models.rankers.catalogue import BODIES
from recspark.models.rankers.spec import Body, Spec

SCENARIO_DROPOUT = 0.1  # share of training rows whose scenario is hidden, if the body has a part for unknown ones


class Network(nn.Module):
    """Logits of all tasks (B, T); that of a regression predicts the standardised target."""

    target_mean_T: Tensor
    target_std_T: Tensor

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
            spec.num_ids,
            spec.content_parts,
            spec.fusion,
            GivenEncoder(len(spec.given_numbers), spec.given_known) if spec.given_numbers or spec.given_texts else None,
        )
        self.body: Body = BODIES[spec.model](spec, self.encoder.dim)
        num_tasks = len(spec.tasks)
        if spec.cross_layers:
            self.cross = Cross(self.encoder.dim, spec.cross_layers)
            self.cross_head = nn.Linear(self.encoder.dim, num_tasks, bias=False)
        # Logarithm of each task's noise variance, learnt; it weighs the task in the loss (Kendall et al. 2018).
        self.log_variance_T = nn.Parameter(torch.zeros(num_tasks)) if spec.task_weighting == "uncertainty" else None
        self.register_buffer("target_mean_T", torch.zeros(num_tasks))
        self.register_buffer("target_std_T", torch.ones(num_tasks))

    def forward(self, x: Inputs, noise: RowNoise | None = None) -> Tensor:
        if noise is not None and self.body.hides_scenarios:
            kept_B = noise.keep(len(x.scenario_B), 1, SCENARIO_DROPOUT).squeeze(1)
            x = replace(x, scenario_B=torch.where(kept_B, x.scenario_B, self.spec.num_scenarios))
        rows = self.encoder(x, noise)
        logits_BT = self.body(rows, x, noise)
        if self.spec.cross_layers:
            logits_BT = logits_BT + self.cross_head(self.cross(rows.x_BX))
        return funnel(logits_BT, self.spec.given) if self.spec.given else logits_BT

    @torch.no_grad()
    def fit(self, dense: Array, scenario: Array, targets: Array) -> None:
        """Set constants from a sample of training rows: quantiles, mean and spread of targets, those of the body.

        `dense` (n, F), `scenario` (n,), `targets` (n, T) as the loss gets them, NaN = no label.
        """
        self.encoder.normaliser.fit(dense)
        for task, kind in enumerate(self.spec.kinds):
            known = targets[np.isfinite(targets[:, task]), task]
            if kind == "regression" and len(known) > 1:
                self.target_mean_T[task], self.target_std_T[task] = float(known.mean()), float(max(known.std(), 1e-6))
        self.body.fit(scenario, targets)


def funnel(logits_BT: Tensor, given: Sequence[int]) -> Tensor:
    """Logits of each step given the step before it -> logits of all steps up to this one.

    The probability is the product along the chain, so every step learns from all rows. `given`: for each task the
    number of the task before it, -1 = none; without circles.
    Reference: Ma et al. 2018, Entire Space Multi-Task Model.
    """
    done: dict[int, Tensor] = {}

    def joint_B(task: int) -> Tensor:
        if task not in done:
            own_B = logits_BT[:, task]
            if given[task] >= 0:
                before_B = joint_B(given[task])
                # 1 / p = (1 + e^-a)(1 + e^-b), and the logit is -log(1 / p - 1)
                own_B = -torch.logsumexp(torch.stack((-before_B, -own_B, -before_B - own_B)), dim=0)
            done[task] = own_B
        return done[task]

    return torch.stack([joint_B(task) for task in range(len(given))], dim=1)


def build(spec: Spec, seed: int) -> Network:
    """A network with seeded initial weights; the state of the global generator does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(spec)


def num_missing(dense: Array) -> int:
    """The number of features that need a missing-indicator, by a sample; see Spec."""
    return len(missing_features(dense))
