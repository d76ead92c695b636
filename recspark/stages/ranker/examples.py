"""The input of a training: the files of every closed window's examples, at one version of their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.tables import training_examples
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import closed_windows


@dataclass(frozen=True)
class Examples:
    """The examples of a closed window.

    `fingerprint`: hash of their inputs. `bundle`: the folder of the retrievers as of the window.
    """

    as_of: date
    fingerprint: str
    files: tuple[str, ...]
    bundle: str


def judged(examples: Sequence[Examples], num_windows: int) -> int:
    """How many of these windows, newest first, the modes are judged on: `num_windows`, but at most half of them, since
    the evaluated models learn from the others; one, if there is only that."""
    return max(1, min(num_windows, len(examples) // 2))


def examples_of(store: Store, config: Config, run_date: date) -> list[Examples]:
    """The closed windows with examples, newest first.

    Raises: DataError without any.
    """
    settings = config.training_examples
    target = training_examples.table(settings.tasks)
    examples = []
    for as_of in closed_windows(run_date, settings.label_days, settings.num_windows):
        stamp = store.stamp(target, as_of=as_of)
        if stamp is None:
            continue
        files = tuple(store.files(target, store.version(target), {c.AS_OF: as_of}))
        if files:
            bundle = artifacts.require(store, config, "retriever", as_of, "retriever")
            examples.append(Examples(as_of, stamp[artifacts.FINGERPRINT], files, bundle))
    if not examples:
        raise DataError(
            f"no training examples before {run_date} in {store.name(target.noun)}; run jobs/training_examples.py first "
            f"(a window of {settings.label_days} days must have closed)"
        )
    return examples
