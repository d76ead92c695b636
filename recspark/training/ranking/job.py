"""What a launch of the rankers' training is told: typed, and pickled on its way to the processes. Imports no torch."""

from dataclasses import dataclass
from typing import Literal

from recspark import columns as c
from recspark.config.rankers import Ranker, Task

TRAINER = "recspark.training.ranking.fit:train_all"  # takes a RankerJob; a name, so that the driver need not load torch
AS_OF_DAY = "as_of_day"  # days since the epoch, a column of the examples
INTS = (AS_OF_DAY, c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX)  # what a row is about: the first columns of a feed
SCENARIO_AT = INTS.index(c.SCENARIO_IDX)
STOP_FOLD = 0  # the tenth of the users by which a training stops early
STEPS = "steps"  # folder of a training's checkpoints, inside the model's
CHECKPOINT_STEPS = 500


@dataclass(frozen=True)
class Window:
    """The examples of one as_of date and what belongs to them."""

    day: int  # as_of, days since the epoch
    files: tuple[str, ...]
    histories: str  # folder
    bundle: str  # the retriever's folder: content vectors, number of items, scenarios
    given: str | None = None  # folder of the features that the configuration names; None: it names none


@dataclass(frozen=True)
class RankerModel:
    """One ranker to train.

    With `epochs_of` it trains for as many epochs as that earlier model found best, on all rows; without, it stops early
    on a tenth of the users. `mode`: one of transfer.py, for the scenario `target`. There is no such ranker if the
    target has no rows, or, for a mode that needs them, if the other scenarios have none.
    """

    name: str
    folder: str
    windows: tuple[Window, ...]  # newest first
    epochs_of: str | None = None
    mode: str = "joint"
    target: int | None = None  # scenario_idx


@dataclass(frozen=True)
class RankerJob:
    """Models to train in order, and what is the same for all of them."""

    models: tuple[RankerModel, ...]
    features: tuple[str, ...]
    tasks: tuple[Task, ...]  # the first one ranks
    settings: Ranker
    seed: int
    reader: Literal["petastorm", "arrow", "auto"]
    threads: int  # of each process
    use_gpu: bool = False
    half_life_days: float | None = None  # of a window's weight; None: all windows count the same
    checkpoint_steps: int = CHECKPOINT_STEPS  # steps between checkpoints; there is one after every epoch too
