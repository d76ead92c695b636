"""Train `sequence`: shows its progress, stops early on validation, resumes after a kill, and transfers.

Transfer between scenarios is chosen by the setting `mode`: `joint` trains on all scenarios together and draws users so
that the scenarios have balanced shares of the targets; `adapter` is joint with an adapter for each scenario; `finetune`
trains on the source scenarios, copies the shared parts to a new network and continues on the target's events only;
`single` knows the target's own events only. Scenarios may share users, items, both or neither.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from recspark.arrays import Array
from recspark.config.retrievers import Sequence
from recspark.errors import TrainingError
from recspark.histories import Histories, keep
from recspark.models.retrievers import sequence
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.sequence_network import Network, build
from recspark.training import checkpoint

log = logging.getLogger(__name__)

BALANCE = 0.5  # joint: a user's chance is the mean over the targets of 1 / square root of their scenario's targets
SCENARIO_PARTS = ("event_scenario", "query_scenario", "adapter_down", "adapter_up")  # not copied in a transfer

Validate = Callable[[sequence.Model], float]  # a figure of the validation rows, the higher the better


@dataclass(frozen=True)
class Plan:
    """`target`: scenario_idx of the settings' target; None for the modes without one. `every`: epochs between
    validations. `patience`: training ends after so many validations in a row without a better figure."""

    target: int | None = None
    every: int = 2
    patience: int = 2


@dataclass
class Progress:
    """How far a training is; JSON in the checkpoint. `epoch`: the next one. `bad`: validations since the best one."""

    stage: str
    epoch: int = 0
    bad: int = 0
    best: float = -math.inf
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    histories: Histories,
    catalogue: Catalogue,
    settings: Sequence,
    plan: Plan,
    seed: int,
    folder: str,
    validate: Validate,
    report: Callable[[str], None] = log.info,
) -> sequence.Model:
    """Train in `folder`, which keeps checkpoints: the same call resumes after a kill, or reads a finished training.

    Returns: the model of the best validation. In mode `finetune` only the second training is validated.
    Raises: TrainingError if the loss is not finite, DataError if no user has two events.
    """
    mode = settings.mode
    if mode in ("joint", "adapter"):
        data = sequence.targets(histories, catalogue, settings, BALANCE)
        start = build(settings, catalogue, data.items, seed)
        return _stage(mode, start, data, catalogue, plan, seed, folder, validate, report)
    target = of_scenarios(histories, lambda scenario: scenario == plan.target)
    data = sequence.targets(target, catalogue, settings)
    start = build(settings, catalogue, data.items, seed)
    if mode == "finetune":
        sources = of_scenarios(histories, lambda scenario: scenario != plan.target)
        source_data = sequence.targets(sources, catalogue, settings)
        fresh = build(settings, catalogue, source_data.items, seed)
        source = _stage("pretrain", fresh, source_data, catalogue, plan, seed, f"{folder}/pretrain", None, report)
        copy_shared(sequence.thaw(source), start, source_data.items)
    return _stage(mode, start, data, catalogue, plan, seed, folder, validate, report)


def of_scenarios(histories: Histories, wanted: Callable[[Array], Array]) -> Histories:
    """The same users with the events of some scenarios only; `wanted`: scenario_idx (E,) -> bool (E,)."""
    return keep(histories, wanted(histories.scenario_idx))


def copy_shared(source: Network, target: Network, items: Array) -> None:
    """Copy into `target` everything but the SCENARIO_PARTS; id embeddings and biases only of `items`, which the source
    was trained on."""
    codes = torch.from_numpy(items.astype(np.int64) + 1)
    state = target.state_dict()
    with torch.no_grad():
        for name, tensor in source.state_dict().items():
            if name in ("item.weight", "item_bias"):
                state[name][codes] = tensor[codes]
            elif name.split(".")[0] not in SCENARIO_PARTS:
                state[name].copy_(tensor)


def _stage(
    stage: str,
    network: Network,
    data: sequence.Targets,
    catalogue: Catalogue,
    plan: Plan,
    seed: int,
    folder: str,
    validate: Validate | None,
    report: Callable[[str], None],
) -> sequence.Model:
    """One training, until the validation stops improving; all epochs without `validate`."""
    started, settings = time.monotonic(), network.settings
    optimizer = sequence.optimizer_of(network)
    progress, best = Progress(stage), sequence.freeze(network, catalogue)
    if found := checkpoint.latest_step(folder):
        progress, best = _restore(found, network, optimizer, catalogue)
        report(f"{stage}: resumed after epoch {progress.epoch}")
    while progress.epoch < settings.max_epochs and progress.bad < plan.patience:
        loss = sequence.epoch(network, optimizer, data, seed, progress.epoch)
        if not math.isfinite(loss):
            raise TrainingError(
                f"sequence: loss is {loss:g} in epoch {progress.epoch + 1} (learning rate {settings.learning_rate:g}); "
                "lower the learning rate; the last good checkpoint is kept"
            )
        progress.epoch += 1
        entry = {"epoch": progress.epoch, "loss": loss}
        if validate is None:
            best, progress.best_epoch = sequence.freeze(network, catalogue), progress.epoch
        elif progress.epoch % plan.every == 0 or progress.epoch == settings.max_epochs:
            now = sequence.freeze(network, catalogue)
            entry["valid"] = validate(now)
            if entry["valid"] > progress.best:
                progress.best, progress.best_epoch, progress.bad, best = entry["valid"], progress.epoch, 0, now
            else:
                progress.bad += 1
        progress.history.append(entry)
        _keep(folder, network, optimizer, progress, best)
        figures = " ".join(f"{name} {value:.5f}" for name, value in entry.items() if name != "epoch")
        report(f"{stage}: epoch {progress.epoch}/{settings.max_epochs} {figures} ({time.monotonic() - started:.0f} s)")
    return best


def _keep(
    folder: str, network: Network, optimizer: torch.optim.Optimizer, progress: Progress, best: sequence.Model
) -> None:
    tensors = {f"model.{name}": tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    tensors |= {f"best.{name}": array for name, array in best.weights.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value.detach().cpu().numpy() for name, value in state.items()}
    checkpoint.save_step(folder, progress.epoch, {"progress": asdict(progress)}, tensors)


def _restore(
    found: tuple[dict[str, Any], dict[str, Array]],
    network: Network,
    optimizer: torch.optim.Optimizer,
    catalogue: Catalogue,
) -> tuple[Progress, sequence.Model]:
    state, arrays = found
    parts: dict[str, dict[str, Array]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, array in arrays.items():
        part, rest = name.split(".", 1)
        parts[part][rest] = np.array(array)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in parts["model"].items()})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in parts["optimizer"].items():
        number, moment = name.split(".", 1)
        moments.setdefault(int(number), {})[moment] = torch.from_numpy(array)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    best = sequence.freeze(network, catalogue)
    return Progress(**state["progress"]), replace(best, weights=parts["best"])
