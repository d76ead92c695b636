"""The input of a training: the files of every closed window's examples, at one version of their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.tables import training_examples
from recspark.warehouse import artifacts, given_features
from recspark.warehouse.store import Store
from recspark.windows import closed_windows


@dataclass(frozen=True)
class Examples:
    """The examples of a closed window.

    `fingerprint`: hash of their inputs. `bundle`: the folder of the retrievers as of the window. `num_rows`: examples.
    `given`: the folder of the features that the configuration names, as of the window; None if it names none.
    """

    as_of: date
    fingerprint: str
    files: tuple[str, ...]
    bundle: str
    num_rows: int
    given: str | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """What tells these examples from others, for a fingerprint."""
        return (self.fingerprint, artifacts.name_of(self.given)) if self.given else (self.fingerprint,)


def judged(examples: Sequence[Examples], num_windows: int) -> int:
    """How many of these windows, newest first, the modes are judged on: `num_windows`, but at most half of them, since
    the evaluated models learn from the others; one, if there is only that."""
    return max(1, min(num_windows, len(examples) // 2))


def newest(examples: Sequence[Examples], max_rows: int) -> Sequence[Examples]:
    """The newest windows, as many as together have at most `max_rows` examples; at least one."""
    fit = int(np.searchsorted(np.cumsum([window.num_rows for window in examples]), max_rows, side="right"))
    return examples[: max(1, fit)]


def examples_of(store: Store, config: Config, run_date: date) -> list[Examples]:
    """The closed windows with examples, newest first.

    Raises: DataError without any.
    """
    settings = config.training_examples
    target = training_examples.table(settings.tasks)
    rows = store.read(target).groupBy(c.AS_OF).count().collect() if store.exists(target) else []
    num_rows = {row[0]: row[1] for row in rows}
    examples = []
    for as_of in closed_windows(run_date, settings.label_days, settings.num_windows):
        stamp = store.stamp(target, as_of=as_of)
        if stamp is None:
            continue
        files = tuple(store.files(target, store.version(target), {c.AS_OF: as_of}))
        if files:
            bundle = artifacts.require(store, config, "retriever", as_of, "retriever")
            given = given_features.folder_of(store, config, as_of)
            examples.append(Examples(as_of, stamp[artifacts.FINGERPRINT], files, bundle, num_rows.get(as_of, 0), given))
    if not examples:
        raise DataError(
            f"no training examples before {run_date} in {store.name(target.noun)}; run jobs/training_examples.py first "
            f"(a window of {settings.label_days} days must have closed)"
        )
    return examples
