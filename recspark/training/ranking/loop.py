"""The training loop: the same on one process and on many, killed or not.

The loss of a step is normalised over the whole batch, whichever ranks hold its rows, and all noise belongs to rows; so
two ranks take the steps that one would (to rounding). A checkpoint holds weights, optimizer and the place in the feed;
what follows it does not depend on whether the process was killed in between.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from recspark.arrays import Array
from recspark.errors import TrainingError
from recspark.models.layers import Inputs, RowNoise
from recspark.models.rankers.network import Network
from recspark.training import checkpoint
from recspark.training.feed.feed import Batch
from recspark.training.feed.prefetch import ahead
from recspark.training.ranking import losses

log = logging.getLogger(__name__)

ADAM_EPS = 1e-6  # above the rounding noise of a gradient, so that noise is not blown up to a full step
CPU = torch.device("cpu")
LOG_SECONDS = 10.0
MAX_GRADIENT_NORM = 10.0  # far above an ordinary step (about 1): one odd batch must not throw the weights away

Prepare = Callable[[Batch], tuple[Inputs, Tensor]]  # a batch of the feed -> model inputs and (B, T) targets
Ready = tuple[Batch, Inputs, Tensor]  # a batch and what it was prepared into
Penalty = Callable[[Batch, int], Tensor]  # a batch, just passed through the model, and its step -> what joins the loss


class Batches(Protocol):
    """What a training reads: a Feed, or one that changes what a Feed gives."""

    num_steps: int

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch, from step `start` on."""


def _nothing(name: str, epoch: int) -> bool:
    return False


@dataclass(frozen=True)
class Extras:
    """What a training does beside the plain loop.

    `practice`: prepares training batches where that differs from the validation's; `penalty`: joins each rank's loss
    (the mean over ranks); `frozen`: (parameter, epoch) -> whether the epoch leaves the parameter as it is.
    """

    practice: Prepare | None = None
    penalty: Penalty | None = None
    frozen: Callable[[str, int], bool] = _nothing


PLAIN = Extras()


@dataclass(frozen=True)
class Settings:
    """How to train. `max_epochs` is exact when there is no validation feed to stop early by."""

    seed: int
    learning_rate: float
    weight_decay: float
    max_epochs: int
    patience: int  # stop after so many epochs without a better validation loss
    loss_weights: tuple[float, ...]  # per task
    checkpoint_steps: int  # also at the end of every epoch


@dataclass
class Progress:
    """Where a training stands; JSON in the checkpoint. `epoch`, `step`: the next one to take."""

    epoch: int = 0
    step: int = 0
    taken: int = 0  # steps in all
    bad_epochs: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    loss_sum: float = 0.0  # of the epoch so far: loss x rows
    rows: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """`num_epochs`: how many epochs the returned weights have seen. `history`: one entry an epoch."""

    num_epochs: int
    history: list[dict[str, float]]
    steps: int
    seconds: float


def train(
    model: Network,
    feed: Batches,
    prepare: Prepare,
    settings: Settings,
    folder: str,
    valid: Batches | None = None,
    report: Callable[[str], None] = log.info,
    device: torch.device = CPU,
    extras: Extras = PLAIN,
) -> Trained:
    """Train in place; resume from `folder` if an earlier call was killed. With `valid`, the best epoch's weights win.

    Raises TrainingError naming step, loss and learning rate when the loss is not finite; earlier checkpoints stay.
    """
    started, rank = time.monotonic(), _rank()
    model.to(device)
    optimizer = _optimizer(model, settings)
    progress, best = Progress(), {}
    if found := checkpoint.latest_step(folder):
        progress, best = _restore(found, model, optimizer)
        report(f"resumed at epoch {progress.epoch + 1}, step {progress.step}")
    _same_everywhere(model)
    while progress.epoch < settings.max_epochs and progress.bad_epochs < settings.patience:
        shown = time.monotonic()
        model.train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not extras.frozen(name, progress.epoch))
        for ready in _prepared(feed.batches(progress.epoch, progress.step), extras.practice or prepare):
            batch = ready[0]
            loss = _step(model, optimizer, ready, settings, progress, device, extras)
            progress.step += 1
            progress.taken += 1
            progress.loss_sum += loss * batch.size
            progress.rows += batch.size
            if time.monotonic() - shown > LOG_SECONDS:
                place = f"epoch {progress.epoch + 1}/{settings.max_epochs} step {progress.step}/{feed.num_steps}"
                report(f"{place} loss {progress.loss_sum / progress.rows:.5f}")
                shown = time.monotonic()
            if progress.taken % settings.checkpoint_steps == 0 and progress.step < feed.num_steps and rank == 0:
                _keep(folder, model, optimizer, progress, best)
        entry = {"loss": progress.loss_sum / max(progress.rows, 1)}
        if valid is not None:
            entry["valid_loss"] = evaluate(model, valid, prepare, device)
            if entry["valid_loss"] < progress.best_loss:
                progress.best_loss, progress.best_epoch, progress.bad_epochs = entry["valid_loss"], progress.epoch, 0
                best = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            else:
                progress.bad_epochs += 1
        progress.history.append(entry)
        progress.epoch, progress.step, progress.loss_sum, progress.rows = progress.epoch + 1, 0, 0.0, 0
        shown_entry = " ".join(f"{name} {value:.5f}" for name, value in entry.items())
        report(f"epoch {progress.epoch}/{settings.max_epochs} {shown_entry} ({time.monotonic() - started:.1f} s)")
        if rank == 0:
            _keep(folder, model, optimizer, progress, best)
    if best:
        model.load_state_dict(best)
    num_epochs = progress.best_epoch + 1 if best else progress.epoch
    return Trained(num_epochs, progress.history, progress.taken, time.monotonic() - started)


def _step(
    model: Network,
    optimizer: torch.optim.Optimizer,
    ready: Ready,
    settings: Settings,
    progress: Progress,
    device: torch.device,
    extras: Extras = PLAIN,
) -> float:
    """One optimizer step; returns the loss over the whole batch, before the step."""
    noise = RowNoise(_generator(settings.seed, progress.taken, device), _rank(), _world())
    sums_T, weights_T = _sums(model, ready, device, noise)
    totals_T = _all_sum(weights_T.detach())
    losses_T = sums_T * (torch.tensor(settings.loss_weights, device=device) / losses.rows_of(totals_T).clamp_min(1e-12))
    if model.log_variance_T is None:
        part = losses_T.sum()
    else:
        part = losses.by_uncertainty(losses_T, model.log_variance_T, model.spec.kinds, totals_T > 0, _world())
    if extras.penalty is not None:
        part = part + extras.penalty(ready[0], progress.taken) / _world()
    optimizer.zero_grad()
    part.backward()
    loss = _all_reduce_gradients(model, part.detach())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(
            f"loss is {loss:g}, gradient norm {norm:g} in epoch {progress.epoch + 1}, step {progress.step} "
            f"(learning rate {settings.learning_rate:g}); lower ranker.learning_rate, or look for extreme labels; "
            "the last good checkpoint stays"
        )
    optimizer.step()
    return loss


def evaluate(model: Network, feed: Batches, prepare: Prepare, device: torch.device = CPU) -> float:
    """The first task's mean loss over all rows of a feed, all ranks together: what ranks is what a training is stopped
    by. Without any label of it, the next task's that has one."""
    model.eval()
    num_tasks = len(model.spec.tasks)
    totals = torch.zeros(2 * num_tasks, dtype=torch.float64, device=device)
    with torch.no_grad():
        for ready in _prepared(feed.batches(0), prepare):
            totals += torch.cat(_sums(model, ready, device, None)).double()
    sums_T, weights_T = _all_sum(totals).cpu().split(num_tasks)
    first = int(torch.argmax((weights_T > 0).to(torch.int64)))
    return float(sums_T[first] / weights_T[first].clamp_min(1e-12))


def _prepared(batches: Iterator[Batch], prepare: Prepare) -> Iterator[Ready]:
    """The next batch is looked up in a thread while the network learns from one."""
    return ahead((batch, *prepare(batch)) for batch in batches)


def _sums(model: Network, ready: Ready, device: torch.device, noise: RowNoise | None) -> tuple[Tensor, Tensor]:
    batch, inputs, targets_BT = ready
    weights_B = torch.from_numpy(batch.weights).to(device)
    logits_BT = model(inputs.to(device), noise)
    mean_T, std_T = model.target_mean_T, model.target_std_T
    return losses.sums(logits_BT, targets_BT.to(device), weights_B, model.spec.kinds, mean_T, std_T)


def _optimizer(model: Network, settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, eps=ADAM_EPS, fused=True
    )


def _generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Noise of one step: from seed and step alone, so that there is no state to keep."""
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))
    return generator


# -- checkpoints -------------------------------------------------------------------------------------------------------


def _keep(
    folder: str, model: Network, optimizer: torch.optim.Optimizer, progress: Progress, best: Mapping[str, Tensor]
) -> None:
    tensors: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    checkpoint.save_step(folder, progress.taken, {"progress": asdict(progress)}, arrays)


def _restore(
    found: tuple[dict[str, Any], dict[str, Array]], model: Network, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]]:
    state, arrays = found
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, array in arrays.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = torch.from_numpy(array.copy())
    model.load_state_dict(parts["model"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        number, key = name.split(".", 1)
        moments.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**state["progress"]), parts["best"]


# -- ranks -------------------------------------------------------------------------------------------------------------


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _all_sum(values: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def _all_reduce_gradients(model: Network, part: Tensor) -> float:
    """Sum gradients and the loss over ranks, in one message; returns the loss."""
    if not dist.is_initialized():
        return float(part)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([part.reshape(1), *(g.reshape(-1) for g in gradients)])
    dist.all_reduce(flat)
    at = 1
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()
    return float(flat[0])


def _same_everywhere(model: Network) -> None:
    """Every rank starts from rank 0's weights and constants."""
    if dist.is_initialized():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)
