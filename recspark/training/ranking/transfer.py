"""Transfer between scenarios: ways to learn a ranker for a target scenario, with the others (its sources) or without.

Every mode is a function of a `Ground` over the network and the loop of recspark/training/ranking/loop.py:
`alone` the target's rows; `joint` all rows; `finetune` the sources' rows, then the target's; `reweight` all rows,
sources as far as they are like the target; `adversarial`, `mmd` all rows, with a hidden layer that does not tell the
target from its sources; `distill` a wide teacher of all rows teaches a student of the target's; `augment` the target's
rows with varied histories. Whether a mode helped is for the gate to say: none of them can know.

The epochs are those after which the target's held-out users are best off (with `joint`, all held-out users). A target
of few rows is passed over as often as it takes for an epoch of it to have the steps of one of all rows, and is looked
at more often meanwhile: beside a mode that had too few steps, any other would look like a transfer that helps.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from recspark.arrays import Array
from recspark.models.layers import Inputs
from recspark.models.rankers.network import Network
from recspark.training.feed.feed import Batch, Feed
from recspark.training.ranking import alignment, augmentation, loop
from recspark.training.ranking.density_ratio import Likeness, likeness
from recspark.training.ranking.job import SCENARIO_AT
from recspark.training.ranking.loop import Extras, Prepare, Settings, Trained

Part = Literal["own", "sources", "all"]  # the target's rows, the other scenarios', both
HEAD_EPOCHS = 1  # of a fine-tuning, in which only the heads move
TEACHER_WIDTH = 2  # times the student's hidden layers
SOFT = 0.5  # the teacher's share of a student's targets
SAMPLE_ROWS = 100_000
CHECKS = 8  # at most, of the held-out users, in the steps of an epoch of all rows


@dataclass(frozen=True)
class Ground:
    """What a ranker is learnt from.

    `target`: scenario_idx, None = there is none, and all parts are all rows; `feed`: a part's training rows; `stop`:
    its rows that end the training early, None where the epochs are given (`settings.max_epochs`, and `first_epochs` of
    an earlier stage); `network`: a fresh one of hidden layers so many times as wide, its constants from that feed.
    """

    target: int | None
    feed: Callable[[Part], Feed]
    stop: Callable[[Part], Feed | None]
    network: Callable[[Feed, int], Network]
    look: Prepare
    settings: Settings
    first_epochs: int
    pace: tuple[int, int] | None  # with given epochs: what an epoch of theirs was, see `pace`
    folder: str  # for checkpoints
    report: Callable[[str], None]
    device: torch.device


@dataclass(frozen=True)
class Learnt:
    """`feed`: the rows of the last stage; `first_epochs`: of the stage before it, 0 = there was none; `pace`: of the
    last stage."""

    network: Network
    trained: Trained
    feed: Feed
    first_epochs: int = 0
    pace: tuple[int, int] = (1, 1)


def alone(ground: Ground) -> Learnt:
    """The target's own rows: what every transfer is measured by."""
    return _learn_own(ground, ground.network(ground.feed("own"), 1), loop.PLAIN)


def joint(ground: Ground) -> Learnt:
    """All rows, each for its own scenario; what is shared is the network's affair."""
    rows = ground.feed("all")
    network = ground.network(rows, 1)
    return Learnt(network, _learn(ground, network, rows, "all", loop.PLAIN), rows)


def finetune(ground: Ground) -> Learnt:
    """The sources first; then the target, in its first epoch the heads alone, so that a hidden layer that fits is not
    thrown away before they do (Howard and Ruder 2018, gradual unfreezing)."""
    network = ground.network(ground.feed("all"), 1)
    first = _stage(ground, network, ground.feed("sources"), "sources", "pretrain")
    checks, _ = pace(ground)
    heads_first = Extras(frozen=lambda name, epoch: epoch < HEAD_EPOCHS * checks and not is_head(name))
    return replace(_learn_own(ground, network, heads_first), first_epochs=first.num_epochs)


def reweight(ground: Ground) -> Learnt:
    """All rows, a source's weighed by how much likelier the target is to have such a row: p(x | target) / p(x | source)
    from a classifier that tells them apart (Bickel et al. 2009, Discriminative Learning Under Covariate Shift)."""
    rows = ground.feed("all")
    network = ground.network(rows, 1)
    sample = rows.sample(SAMPLE_ROWS)
    num_features = len(network.spec.features)
    like = likeness(_features(network, sample.floats[:, :num_features]), sample.ints[:, SCENARIO_AT] == ground.target)
    weighed = Reweighted(rows, network, like, ground.target)
    trained = _learn(ground, network, weighed, "own", loop.PLAIN)
    return Learnt(network, trained, rows)


def adversarial(ground: Ground) -> Learnt:
    """All rows, against a critic that tells target from sources by the hidden layer (Ganin et al. 2016)."""
    return _aligned(ground, alignment.adversarial)


def mmd(ground: Ground) -> Learnt:
    """All rows, with the hidden layers of target and sources drawn together by their maximum mean discrepancy (Long et
    al. 2015, Learning Transferable Features with Deep Adaptation Networks)."""
    return _aligned(ground, alignment.mmd)


def distill(ground: Ground) -> Learnt:
    """A wide teacher learns all rows; the student learns the target's, from labels and teacher in equal parts (Hinton
    et al. 2015). Cross-entropy is linear in its target, so their mean is the target."""
    rows = ground.feed("all")
    teacher = ground.network(rows, TEACHER_WIDTH)
    first = _stage(ground, teacher, rows, "all", "teacher")
    student = ground.network(ground.feed("own"), 1)
    practice = softened(ground.look, teacher.eval(), ground.device)
    return replace(_learn_own(ground, student, Extras(practice=practice)), first_epochs=first.num_epochs)


def augment(ground: Ground) -> Learnt:
    """The target's rows, in every epoch with other parts of their histories; see augmentation.py."""
    practice = augmentation.varied(ground.look, ground.settings.seed)
    return _learn_own(ground, ground.network(ground.feed("own"), 1), Extras(practice=practice))


MODES: dict[str, Callable[[Ground], Learnt]] = {
    mode.__name__: mode for mode in (joint, alone, finetune, reweight, adversarial, mmd, distill, augment)
}
OWN_ROWS_ONLY = ("alone", "augment")  # no transfer: they work without any source


@dataclass(frozen=True)
class Reweighted:
    """A feed whose source rows weigh as much as they are like the target."""

    rows: Feed
    network: Network  # its normaliser is what the likeness was learnt on
    like: Likeness
    target: int | None

    @property
    def num_steps(self) -> int:
        return self.rows.num_steps

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for batch in self.rows.batches(epoch, start):
            factor = self.like(_features(self.network, batch.floats[:, : len(self.network.spec.features)]))
            factor[batch.ints[:, SCENARIO_AT] == self.target] = 1.0
            yield replace(batch, weights=batch.weights * factor.astype(np.float32))


@dataclass(frozen=True)
class Repeated:
    """A feed whose epochs are several passes over the rows, each in an order of its own."""

    rows: Feed
    passes: int

    @property
    def num_steps(self) -> int:
        return self.rows.num_steps * self.passes

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        first, skip = divmod(start, self.rows.num_steps)
        for number in range(first, self.passes):
            yield from self.rows.batches(epoch * self.passes + number, skip if number == first else 0)


def softened(look: Prepare, teacher: Network, device: torch.device) -> Prepare:
    """Targets, where there are any, moved half the way to what the teacher says."""

    def practice(batch: Batch) -> tuple[Inputs, Tensor]:
        inputs, targets_BT = look(batch)
        with torch.no_grad():
            logits_BT = teacher(inputs.to(device))
            binary_T = torch.tensor([kind == "binary" for kind in teacher.spec.kinds], device=device)
            values_BT = logits_BT * teacher.target_std_T + teacher.target_mean_T
            taught_BT = torch.where(binary_T, torch.sigmoid(logits_BT), values_BT).to(targets_BT.device)
        return inputs, torch.lerp(targets_BT, taught_BT, SOFT)

    return practice


def is_head(parameter: str) -> bool:
    """Does the name of a network's parameter say that it makes logits of a hidden layer?"""
    return any("head" in part for part in parameter.split("."))


def pace(ground: Ground) -> tuple[int, int]:
    """In as many steps on the target's rows as an epoch of all rows takes: looks at the held-out users, and passes over
    the target's rows before each. Given epochs are epochs of their own pace."""
    if ground.pace is not None:
        return ground.pace
    passes = max(1, round(ground.feed("all").num_steps / ground.feed("own").num_steps))
    checks = min(CHECKS, passes)
    return checks, math.ceil(passes / checks)


def _aligned(ground: Ground, way: Callable[[Network, alignment.Hidden, int | None, int], Extras]) -> Learnt:
    rows = ground.feed("all")
    network = ground.network(rows, 1)
    steps = rows.num_steps * ground.settings.max_epochs
    with alignment.watched(network) as hidden:
        trained = _learn(ground, network, rows, "own", way(network, hidden, ground.target, steps))
    return Learnt(network, trained, rows)


def _stage(ground: Ground, network: Network, rows: Feed, stop: Part, name: str) -> Trained:
    """A stage before the last one."""
    settings, valid = ground.settings, ground.stop(stop)
    if valid is None:
        settings = replace(settings, max_epochs=ground.first_epochs)
    folder = f"{ground.folder}/{name}"
    ground.report(f"{name}: {rows.num_rows} rows")
    return loop.train(network, rows, ground.look, settings, folder, valid, ground.report, ground.device)


def _learn(ground: Ground, network: Network, rows: loop.Batches, stop: Part, extras: Extras) -> Trained:
    valid = ground.stop(stop)
    report, device = ground.report, ground.device
    return loop.train(network, rows, ground.look, ground.settings, ground.folder, valid, report, device, extras)


def _learn_own(ground: Ground, network: Network, extras: Extras) -> Learnt:
    """From the target's rows; an epoch is what lies between two looks at its held-out users."""
    (checks, passes), settings, own = pace(ground), ground.settings, ground.feed("own")
    if ground.stop("own") is not None:
        settings = replace(settings, max_epochs=settings.max_epochs * checks, patience=settings.patience * checks)
    trained = _learn(replace(ground, settings=settings), network, Repeated(own, passes), "own", extras)
    return Learnt(network, trained, own, pace=(checks, passes))


def _features(network: Network, dense: Array) -> Array:
    """(n, F) -> (n, F + M) float64, each in -1.5..1.5."""
    normaliser = network.encoder.normaliser
    placed = normaliser(torch.from_numpy(np.ascontiguousarray(dense)).to(normaliser.starts_FK.device))
    return placed.double().cpu().numpy()
