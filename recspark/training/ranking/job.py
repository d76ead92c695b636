"""What a launch of the trainer is asked to do: JSON, since it travels to other machines. Imports no torch, no Spark."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from recspark import columns as c

AS_OF_DAY = "as_of_day"  # days since the epoch, a column of the examples
INTS = (AS_OF_DAY, c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX)  # what a row is about: the first columns of a feed
SCENARIO_AT = INTS.index(c.SCENARIO_IDX)
STOP_FOLD = 0  # the tenth of the users by which a training stops early
STEPS = "steps"  # folder of a training's checkpoints, inside the model's


@dataclass(frozen=True)
class Window:
    """The examples of one as_of date and what belongs to them."""

    day: int  # as_of, days since the epoch
    files: tuple[str, ...]
    histories: str  # folder
    bundle: str  # the retriever's folder: content vectors, number of items, scenarios


@dataclass(frozen=True)
class Model:
    """One ranker to train. With `epochs_of` it takes as many epochs as that earlier model found best and uses all rows;
    without, it stops early on a tenth of the users. `mode`: one of transfer.py, towards the scenario `target`; without
    rows of its own or, where the mode asks for them, of others there is no such ranker."""

    name: str
    folder: str
    windows: tuple[Window, ...]  # newest first
    epochs_of: str | None = None
    mode: str = "joint"
    target: int | None = None  # scenario_idx


@dataclass(frozen=True)
class Job:
    models: tuple[Model, ...]
    features: tuple[str, ...]
    tasks: tuple[tuple[str, str, float], ...]  # name, kind, loss weight; the first one ranks
    settings: dict[str, Any]  # config.ranker
    seed: int
    reader: str
    threads: int
    use_gpu: bool = False
    manifest: dict[str, Any] | None = None  # goes into the manifests
    half_life_days: float | None = None  # of a window's weight; None: all windows count the same
    given: dict[str, str] = field(default_factory=dict)  # task -> the one before it in its funnel

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> "Job":
        models = tuple(
            Model(**{**model, "windows": tuple(Window(**{**w, "files": tuple(w["files"])}) for w in model["windows"])})
            for model in tree["models"]
        )
        tasks = tuple((name, kind, weight) for name, kind, weight in tree["tasks"])
        return Job(**{**tree, "models": models, "features": tuple(tree["features"]), "tasks": tasks})


def run(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Entry point of every process: train all models of `Job.from_json(tree)`.

    Returns {"models": {name: {...}}}, or {"error": message}: an error for people must come home as itself and not as a
    process that died.
    """
    from recspark.training.ranking import fit  # here, so that the driver need not load torch

    return fit.run(tree)
