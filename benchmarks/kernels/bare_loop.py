"""The plain torch loop that `train` and `gpu` compare recspark's with: its batches are ready tensors in memory."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from recspark.models.layers import Inputs, RowNoise
from recspark.models.rankers.network import Network
from recspark.training.ranking import loop, losses


def seconds(
    model: Network,
    ready: Sequence[tuple[Inputs, Tensor, Tensor]],
    steps: int,
    warm_up: int = 0,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.01,
) -> float:
    """Seconds of `steps` steps, after `warm_up` that are not timed.

    `ready`: batches of inputs, targets (n, T) and weights (n,), used again and again in turn.
    """
    device = model.target_mean_T.device
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, weight_decay=weight_decay, eps=loop.ADAM_EPS, fused=True
    )
    generator = torch.Generator(device).manual_seed(0)
    model.train()
    began = time.monotonic()
    for step in range(warm_up + steps):
        if step == warm_up:
            _finished(device)
            began = time.monotonic()
        inputs, targets, weights = ready[step % len(ready)]
        logits = model(inputs, RowNoise(generator, 0, 1))
        sums, totals = losses.sums(logits, targets, weights, model.spec.kinds, model.target_mean_T, model.target_std_T)
        optimizer.zero_grad()
        (sums / totals).sum().backward()
        optimizer.step()
    _finished(device)
    return time.monotonic() - began


def _finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
