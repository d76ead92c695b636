"""Transfer between scenarios: ways to train a ranker for a target scenario, with the others (its sources) or without.

Every mode is a function of a `TransferContext` over the network and the loop of recspark/training/ranking/loop.py:
`alone` the target's rows; `joint` all rows; `finetune` the sources' rows, then the target's; `reweight` all rows, each
source row weighted by how much it is like the target's; `mmd` all rows, with a hidden layer that does
not tell the target from its sources; `distill` a wide teacher trained on all rows teaches a student of the target's;
`augment` the target's rows with changed histories. Whether a mode helped is decided by the gate, not here.

The number of epochs is the one that is best for the target's held-out users (with `joint`, for all held-out users). A
target with few rows is passed over several times an epoch, so that its epoch has as many steps as one of all rows, and
is validated more often meanwhile: with too few steps for one mode, any other would look like a transfer that helps.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from recspark.arrays import Array
from recspark.models.layers import Inputs
from recspark.models.rankers.network import Network
from recspark.training.feed.feed import Batch, Feed
from recspark.training.ranking import alignment, augmentation, loop
from recspark.training.ranking.density_ratio import DensityRatio, density_ratio
from recspark.training.ranking.job import SCENARIO_AT
from recspark.training.ranking.loop import Extras, LoopSettings, PrepareBatch, TrainingResult

Part: TypeAlias = Literal["own", "sources", "all"]  # the target's rows, the other scenarios', both
HEAD_EPOCHS = 1  # of a fine-tuning, in which only the heads are trained
TEACHER_WIDTH = 2  # times the student's hidden layers
TEACHER_WEIGHT = 0.5  # the teacher's share of a student's targets
SAMPLE_ROWS = 100_000
MAX_CHECKS = 8  # of the held-out users, in the steps of an epoch of all rows


class EpochSchedule(NamedTuple):
    """What the steps of an epoch of all rows become on the target's rows: `checks` of the held-out users, with `passes`
    over the target's rows before each."""

    checks: int
    passes: int


ONE_PASS = EpochSchedule(1, 1)


@dataclass(frozen=True)
class TransferContext:
    """What a mode trains a ranker from.

    `target`: scenario_idx, None = there is none, and all parts are all rows; `feed`: a part's training rows; `stop`:
    its rows that end the training early, None if the epochs are given (`settings.max_epochs`, and `first_epochs` of an
    earlier stage); `network`: an untrained one whose hidden layers are that many times as wide, its constants from that
    feed.
    """

    target: int | None
    feed: Callable[[Part], Feed]
    stop: Callable[[Part], Feed | None]
    network: Callable[[Feed, int], Network]
    prepare_batch: PrepareBatch
    settings: LoopSettings
    first_epochs: int
    schedule: EpochSchedule | None  # of the model that gave the epochs; None: see `target_epoch_schedule`
    folder: str  # for checkpoints
    report: Callable[[str], None]
    device: torch.device


@dataclass(frozen=True)
class TransferResult:
    """`feed`: the rows of the last stage; `first_epochs`: of the stage before it, 0 = there was none; `schedule`: of
    the last stage."""

    network: Network
    training: TrainingResult
    feed: Feed
    first_epochs: int = 0
    schedule: EpochSchedule = ONE_PASS


def alone(context: TransferContext) -> TransferResult:
    """The target's own rows: what every transfer is compared with."""
    return _train_on_target(context, context.network(context.feed("own"), 1), loop.NO_EXTRAS)


def joint(context: TransferContext) -> TransferResult:
    """All rows, each for its own scenario; the network decides what is shared."""
    rows = context.feed("all")
    network = context.network(rows, 1)
    return TransferResult(network, _train(context, network, rows, "all", loop.NO_EXTRAS), rows)


def finetune(context: TransferContext) -> TransferResult:
    """The sources first, then the target; in its first epoch only the heads are trained, so that a good hidden layer is
    not lost before the heads fit.

    Reference: Howard and Ruder 2018, Universal Language Model Fine-tuning (gradual unfreezing).
    """
    network = context.network(context.feed("all"), 1)
    first = _first_stage(context, network, context.feed("sources"), "sources", "pretrain")
    checks, _ = target_epoch_schedule(context)
    heads_first = Extras(frozen=lambda name, epoch: epoch < HEAD_EPOCHS * checks and not is_head(name))
    return replace(_train_on_target(context, network, heads_first), first_epochs=first.num_epochs)


def reweight(context: TransferContext) -> TransferResult:
    """All rows, a source's weighted by the density ratio p(x | target) / p(x | source), from a classifier that tells
    the two apart.

    Reference: Bickel et al. 2009, Discriminative Learning Under Covariate Shift.
    """
    rows = context.feed("all")
    network = context.network(rows, 1)
    sample = rows.sample(SAMPLE_ROWS)
    num_features = len(network.spec.features)
    features = _features(network, sample.floats[:, :num_features])
    ratio = density_ratio(features, sample.ints[:, SCENARIO_AT] == context.target)
    reweighted = Reweighted(rows, network, ratio, context.target)
    training = _train(context, network, reweighted, "own", loop.NO_EXTRAS)
    return TransferResult(network, training, rows)


def mmd(context: TransferContext) -> TransferResult:
    """All rows, with the hidden layers of target and sources made alike by their maximum mean discrepancy.

    Reference: Long et al. 2015, Learning Transferable Features with Deep Adaptation Networks.
    """
    rows = context.feed("all")
    network = context.network(rows, 1)
    with alignment.recorded_hidden_layer(network) as hidden:
        training = _train(context, network, rows, "own", alignment.mmd(hidden, context.target))
    return TransferResult(network, training, rows)


def distill(context: TransferContext) -> TransferResult:
    """A wide teacher is trained on all rows; the student on the target's, from labels and teacher in equal parts.
    Cross-entropy is linear in its target, so their mean is the target.

    Reference: Hinton et al. 2015, Distilling the Knowledge in a Neural Network.
    """
    rows = context.feed("all")
    teacher = context.network(rows, TEACHER_WIDTH)
    first = _first_stage(context, teacher, rows, "all", "teacher")
    student = context.network(context.feed("own"), 1)
    training_prepare = distilled_targets(context.prepare_batch, teacher.eval(), context.device)
    extras = Extras(training_prepare=training_prepare)
    return replace(_train_on_target(context, student, extras), first_epochs=first.num_epochs)


def augment(context: TransferContext) -> TransferResult:
    """The target's rows, their histories changed in another way in every epoch; see augmentation.py."""
    training_prepare = augmentation.augmented(context.prepare_batch, context.settings.seed)
    network = context.network(context.feed("own"), 1)
    return _train_on_target(context, network, Extras(training_prepare=training_prepare))


MODES: dict[str, Callable[[TransferContext], TransferResult]] = {
    mode.__name__: mode for mode in (joint, alone, finetune, reweight, mmd, distill, augment)
}
OWN_ROWS_ONLY = ("alone", "augment")  # these two are no transfers: they need no source


@dataclass(frozen=True)
class Reweighted:
    """A feed whose source rows are weighted by their density ratio."""

    rows: Feed
    network: Network  # its normaliser gave the features of the ratio
    ratio: DensityRatio
    target: int | None

    @property
    def num_steps(self) -> int:
        return self.rows.num_steps

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for batch in self.rows.batches(epoch, start):
            factor = self.ratio(_features(self.network, batch.floats[:, : len(self.network.spec.features)]))
            factor[batch.ints[:, SCENARIO_AT] == self.target] = 1.0
            yield replace(batch, weights=batch.weights * factor.astype(np.float32))


@dataclass(frozen=True)
class Repeated:
    """A feed whose epochs are several passes over the rows, each in its own order."""

    rows: Feed
    passes: int

    @property
    def num_steps(self) -> int:
        return self.rows.num_steps * self.passes

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        first, skip = divmod(start, self.rows.num_steps)
        for number in range(first, self.passes):
            yield from self.rows.batches(epoch * self.passes + number, skip if number == first else 0)


def distilled_targets(prepare_batch: PrepareBatch, teacher: Network, device: torch.device) -> PrepareBatch:
    """`prepare_batch` with targets that are half the label, half the teacher's prediction; NaN stays NaN."""

    def training_prepare(batch: Batch) -> tuple[Inputs, Tensor]:
        inputs, targets_BT = prepare_batch(batch)
        with torch.no_grad():
            logits_BT = teacher(inputs.to(device))
            binary_T = torch.tensor([kind == "binary" for kind in teacher.spec.kinds], device=device)
            values_BT = logits_BT * teacher.target_std_T + teacher.target_mean_T
            taught_BT = torch.where(binary_T, torch.sigmoid(logits_BT), values_BT).to(targets_BT.device)
        return inputs, torch.lerp(targets_BT, taught_BT, TEACHER_WEIGHT)

    return training_prepare


def is_head(parameter: str) -> bool:
    """Is the parameter of this name part of a head, which makes logits of a hidden layer?"""
    return any("head" in part for part in parameter.split("."))


def target_epoch_schedule(context: TransferContext) -> EpochSchedule:
    """Checks and passes on the target's rows that take about as many steps as an epoch of all rows; with given epochs,
    those of the model that gave them."""
    if context.schedule is not None:
        return context.schedule
    passes = max(1, round(context.feed("all").num_steps / context.feed("own").num_steps))
    checks = min(MAX_CHECKS, passes)
    return EpochSchedule(checks, math.ceil(passes / checks))


def _first_stage(context: TransferContext, network: Network, rows: Feed, stop: Part, name: str) -> TrainingResult:
    """A stage before the last one."""
    settings, valid = context.settings, context.stop(stop)
    if valid is None:
        settings = replace(settings, max_epochs=context.first_epochs)
    folder, report = f"{context.folder}/{name}", context.report
    report(f"{name}: {rows.num_rows} rows")
    return loop.train(network, rows, context.prepare_batch, settings, folder, valid, report, context.device)


def _train(
    context: TransferContext, network: Network, rows: loop.Batches, stop: Part, extras: Extras
) -> TrainingResult:
    """The last stage."""
    return loop.train(
        network,
        rows,
        context.prepare_batch,
        context.settings,
        context.folder,
        context.stop(stop),
        context.report,
        context.device,
        extras,
    )


def _train_on_target(context: TransferContext, network: Network, extras: Extras) -> TransferResult:
    """The last stage, on the target's rows. Here an epoch of the loop ends with every check of the held-out users."""
    schedule, settings, own = target_epoch_schedule(context), context.settings, context.feed("own")
    checks, passes = schedule
    if context.stop("own") is not None:
        settings = replace(settings, max_epochs=settings.max_epochs * checks, patience=settings.patience * checks)
    training = _train(replace(context, settings=settings), network, Repeated(own, passes), "own", extras)
    return TransferResult(network, training, own, schedule=schedule)


def _features(network: Network, dense: Array) -> Array:
    """(n, F) -> (n, F + M) float64, each in -1.5..1.5."""
    normaliser = network.encoder.normaliser
    placed = normaliser(torch.from_numpy(np.ascontiguousarray(dense)).to(normaliser.starts_FK.device))
    return np.asarray(placed.double().cpu().numpy())
