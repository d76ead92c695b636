"""The training loop: the same on one process and on many, killed or not.

The loss of a step is normalised over the whole batch, whichever ranks hold its rows, and noise is drawn by row, so two
ranks take the same steps as one (up to rounding). A checkpoint holds weights, optimizer and the place in the feed;
the steps after it do not depend on whether the process was killed in between.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias

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
from recspark.training.feed.prefetch import prefetch
from recspark.training.ranking import losses

log = logging.getLogger(__name__)

ADAM_EPS = 1e-6  # above the rounding noise of a gradient, so that noise is not blown up to a full step
CPU = torch.device("cpu")
LOG_SECONDS = 10.0
MAX_GRADIENT_NORM = 10.0  # far above an ordinary step (about 1): one odd batch must not throw the weights away

PrepareBatch: TypeAlias = Callable[[Batch], tuple[Inputs, Tensor]]  # a batch -> model inputs and (B, T) targets
PreparedBatch: TypeAlias = tuple[Batch, Inputs, Tensor]
Penalty: TypeAlias = Callable[[Batch, int], Tensor]  # a batch that has just passed through the model, and its step


class Batches(Protocol):
    """What a training reads: a Feed, or a wrapper that changes a Feed's batches."""

    @property
    def num_steps(self) -> int:
        """Of an epoch, on every rank."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch, from step `start` on."""


def _none_frozen(name: str, epoch: int) -> bool:
    return False


@dataclass(frozen=True)
class Extras:
    """What a training does beside the plain loop.

    `training_prepare`: prepares training batches where that differs from the validation's; `penalty`: added to each
    rank's loss (the mean over ranks counts); `frozen`: (parameter, epoch) -> is the parameter left as it is?
    """

    training_prepare: PrepareBatch | None = None
    penalty: Penalty | None = None
    frozen: Callable[[str, int], bool] = _none_frozen


NO_EXTRAS = Extras()


@dataclass(frozen=True)
class LoopSettings:
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
class TrainingResult:
    """`num_epochs`: how many epochs the returned weights have seen. `history`: one entry an epoch."""

    num_epochs: int
    history: list[dict[str, float]]
    steps: int
    seconds: float


def train(
    model: Network,
    feed: Batches,
    prepare_batch: PrepareBatch,
    settings: LoopSettings,
    folder: str,
    valid: Batches | None = None,
    report: Callable[[str], None] = log.info,
    device: torch.device = CPU,
    extras: Extras = NO_EXTRAS,
) -> TrainingResult:
    """Train in place; resume from `folder` if an earlier call was killed. With `valid`, the weights of the best epoch
    are kept.

    Raises: TrainingError with step, loss and learning rate when the loss is not finite; earlier checkpoints stay.
    """
    started, rank = time.monotonic(), _rank()
    model.to(device)
    optimizer = _optimizer(model, settings)
    progress = Progress()
    best: dict[str, Tensor] = {}
    if found := checkpoint.latest_step(folder):
        progress, best = _load_checkpoint(found, model, optimizer)
        report(f"resumed at epoch {progress.epoch + 1}, step {progress.step}")
    _broadcast_weights(model)
    while progress.epoch < settings.max_epochs and progress.bad_epochs < settings.patience:
        shown = time.monotonic()
        model.train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not extras.frozen(name, progress.epoch))
        batches = feed.batches(progress.epoch, progress.step)
        for prepared in _prepared(batches, extras.training_prepare or prepare_batch):
            batch = prepared[0]
            loss = _step(model, optimizer, prepared, settings, progress, device, extras)
            progress.step += 1
            progress.taken += 1
            progress.loss_sum += loss * batch.size
            progress.rows += batch.size
            if time.monotonic() - shown > LOG_SECONDS:
                place = f"epoch {progress.epoch + 1}/{settings.max_epochs} step {progress.step}/{feed.num_steps}"
                report(f"{place} loss {progress.loss_sum / progress.rows:.5f}")
                shown = time.monotonic()
            if progress.taken % settings.checkpoint_steps == 0 and progress.step < feed.num_steps and rank == 0:
                _save_checkpoint(folder, model, optimizer, progress, best)
        entry = {"loss": progress.loss_sum / max(progress.rows, 1)}
        if valid is not None:
            entry["valid_loss"] = evaluate(model, valid, prepare_batch, device)
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
            _save_checkpoint(folder, model, optimizer, progress, best)
    if best:
        model.load_state_dict(best)
    num_epochs = progress.best_epoch + 1 if best else progress.epoch
    return TrainingResult(num_epochs, progress.history, progress.taken, time.monotonic() - started)


def _step(
    model: Network,
    optimizer: torch.optim.Optimizer,
    prepared: PreparedBatch,
    settings: LoopSettings,
    progress: Progress,
    device: torch.device,
    extras: Extras = NO_EXTRAS,
) -> float:
    """One optimizer step; returns the loss over the whole batch, before the step."""
    noise = RowNoise(_generator(settings.seed, progress.taken, device), _rank(), _world())
    sums_T, weights_T = _sums(model, prepared, device, noise)
    totals_T = _all_sum(weights_T.detach())
    num_rows_T = losses.num_rows_by_task(totals_T).clamp_min(1e-12)
    losses_T = sums_T * (torch.tensor(settings.loss_weights, device=device) / num_rows_T)
    if model.log_variance_T is None:
        part = losses_T.sum()
    else:
        part = losses.uncertainty_weighted(losses_T, model.log_variance_T, model.spec.kinds, totals_T > 0, _world())
    if extras.penalty is not None:
        part = part + extras.penalty(prepared[0], progress.taken) / _world()
    optimizer.zero_grad()
    torch.autograd.backward(part)
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


def evaluate(model: Network, feed: Batches, prepare_batch: PrepareBatch, device: torch.device = CPU) -> float:
    """The mean loss of the first task, the one that ranks, over all rows of a feed and all ranks. If no row has a label
    of it: of the next task that has one."""
    model.eval()
    num_tasks = len(model.spec.tasks)
    totals = torch.zeros(2 * num_tasks, dtype=torch.float64, device=device)
    with torch.no_grad():
        for prepared in _prepared(feed.batches(0), prepare_batch):
            totals += torch.cat(_sums(model, prepared, device, None)).double()
    sums_T, weights_T = torch.split(_all_sum(totals).cpu(), num_tasks)
    first = int(torch.argmax((weights_T > 0).to(torch.int64)))
    return float(sums_T[first] / weights_T[first].clamp_min(1e-12))


def _prepared(batches: Iterator[Batch], prepare_batch: PrepareBatch) -> Iterator[PreparedBatch]:
    """The next batch is prepared in a thread while the network learns from one."""
    return prefetch((batch, *prepare_batch(batch)) for batch in batches)


def _sums(
    model: Network, prepared: PreparedBatch, device: torch.device, noise: RowNoise | None
) -> tuple[Tensor, Tensor]:
    batch, inputs, targets_BT = prepared
    weights_B = torch.from_numpy(batch.weights).to(device)
    logits_BT = model(inputs.to(device), noise)
    mean_T, std_T = model.target_mean_T, model.target_std_T
    return losses.sums(logits_BT, targets_BT.to(device), weights_B, model.spec.kinds, mean_T, std_T)


def _optimizer(model: Network, settings: LoopSettings) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, eps=ADAM_EPS, fused=True
    )


def _generator(seed: int, step: int, device: torch.device) -> torch.Generator:
    """Noise of one step, from seed and step alone, so that there is no state to save."""
    generator = torch.Generator(device)
    generator.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1)[0]))
    return generator


# -- checkpoints -------------------------------------------------------------------------------------------------------


def _save_checkpoint(
    folder: str, model: Network, optimizer: torch.optim.Optimizer, progress: Progress, best: Mapping[str, Tensor]
) -> None:
    tensors: dict[str, Tensor] = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    checkpoint.save_step(folder, progress.taken, {"progress": asdict(progress)}, arrays)


def _load_checkpoint(
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


def _broadcast_weights(model: Network) -> None:
    """Every rank starts from rank 0's weights and constants."""
    if dist.is_initialized():
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)
