"""Score candidates with the trained rankers; the retrievers' scores are columns of the candidates already.

For mapInArrow: a `Scorer` holds only paths and is pickled to the workers. A worker process opens each model once, and
imports torch or LightGBM only for modes that need it. A row's scores depend on the row alone, so batches and partitions
do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from scipy.special import logit

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.given_features import (
    Coding,
    FeatureBook,
    from_arrays,
    numbers_and_codes,
    tree_columns,
    tree_names,
)
from recspark.models.rankers.blend import blend
from recspark.stages.ranker.boosted import GIVEN, IMPORTANCE
from recspark.stages.ranker.modes import BLEND, EVALUATED, GBDT, RANKER, trained_modes
from recspark.tables.histories import shards_folder
from recspark.warehouse import artifacts, given_features
from recspark.warehouse.store import Store
from recspark.windows import as_of_day

if TYPE_CHECKING:
    from recspark.models.rankers import gbdt

EDGE = 1e-12  # a probability of 0 or 1 has no logit


@dataclass(frozen=True)
class Scorer:
    """Callable on rows of `candidates` of one date.

    `rankers`, `trees`: folders of a copy of the torch rankers and of gbdt, None if it was not trained. `histories`,
    `bundle`: the folders of the date. `day`: the date as days since the epoch. `retrievers`: the configured ones.
    `trained`: the trained modes. `given`: the folder of the features that the configuration names.
    """

    rankers: str | None
    trees: str | None
    histories: str
    bundle: str
    day: int
    retrievers: tuple[str, ...]
    trained: tuple[str, ...] = (RANKER, GBDT, BLEND)
    given: str | None = None

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that can order a list tonight: the trained ones, then the retrievers."""
        return (*(self.trained if self.rankers and self.trees else ()), *self.retrievers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the model folders, the same in any warehouse."""
        return tuple("/".join(path.rsplit("/", 2)[-2:]) for path in (self.rankers, self.trees) if path)

    def folders(self, mode: str) -> str:
        """The folders of a trained mode's models, for published_runs."""
        parts = {GBDT: (self.trees,), BLEND: (self.rankers, self.trees)}
        return ", ".join(str(path) for path in parts.get(mode, (self.rankers,)))

    def columns(self, modes: Sequence[str]) -> tuple[str, ...]:
        """Columns of candidates that the modes read."""
        parts = {RANKER, GBDT} if BLEND in modes else set()
        needed = parts.union(modes) - {BLEND}
        features: list[Sequence[str]] = []
        if GBDT in needed:
            manifest = model_folder.read_manifest(str(self.trees))
            given = manifest.get(IMPORTANCE, ())
            features.append([name for name in manifest["features"] if name not in given])
        if needed - {GBDT}:
            features.append(model_folder.read_manifest(f"{self.rankers}/{RANKER}")["spec"]["features"])
        return (c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX, *dict.fromkeys(name for names in features for name in names))

    def __call__(self, rows: pa.Table | pa.RecordBatch, modes: Sequence[str]) -> dict[str, Array]:
        """Trained mode -> float64 (n,), higher is better within a list; of a torch ranker: probability of the first
        task."""
        parts = (RANKER, GBDT) if BLEND in modes else ()
        needed = dict.fromkeys((*parts, *(mode for mode in modes if mode != BLEND)))
        scores = {mode: self._boosted(rows) if mode == GBDT else self._neural(rows, mode) for mode in needed}
        if parts:
            scores[BLEND] = self._blended(scores[RANKER], scores[GBDT])
        return {mode: scores[mode] for mode in modes}

    def _blended(self, probabilities: Array, trees: Array) -> Array:
        widths = (_spread(f"{self.rankers}/{RANKER}"), _open(str(self.trees)).spread)
        return blend((logit(np.clip(probabilities, EDGE, 1 - EDGE)), trees), widths)

    def _boosted(self, rows: pa.Table | pa.RecordBatch) -> Array:
        from recspark.models.rankers import gbdt  # here: see the top

        trees, coding = _open(str(self.trees)), _coding(str(self.trees))
        if coding is None:
            return np.asarray(gbdt.predict(trees, _dense(rows, trees.features), num_threads=1), np.float64)
        if self.given is None or (book := _features(self.given, self.day)).names != coding.names:
            raise DataError(
                f"{self.given}: found other features than {self.trees} was trained with; run jobs/ranker.py first"
            )
        user, item = (_numbers(rows, name) for name in (c.USER_IDX, c.ITEM_IDX))
        found = numbers_and_codes(book, coding, user, item, np.full(len(user), self.day))
        dense = _dense(rows, [name for name in trees.features if name not in tree_names(coding)[0]])
        columns = np.column_stack((dense, tree_columns(coding, *found)))
        return np.asarray(gbdt.predict(trees, columns, num_threads=1), np.float64)

    def _neural(self, rows: pa.Table | pa.RecordBatch, mode: str) -> Array:
        from recspark.training.ranking import scoring  # here: see the top

        folder = f"{self.rankers}/{mode}"
        scenario, user, item = (_numbers(rows, name) for name in (c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX))
        dense = _dense(rows, scoring.features(f"{self.rankers}/{RANKER}"))
        if mode == RANKER:
            ids = (scenario, user, item)
            return scoring.probabilities(folder, self.histories, self.bundle, self.day, dense, ids, self.given)
        out = np.empty(len(dense))
        for target in np.unique(scenario):
            rows_of_target = scenario == target
            model = _ranker_of(str(self.rankers), mode, int(target))
            keys = (scenario[rows_of_target], user[rows_of_target], item[rows_of_target])
            out[rows_of_target] = scoring.probabilities(
                model, self.histories, self.bundle, self.day, dense[rows_of_target], keys, self.given
            )
        return out


def scorer(store: Store, config: Config, run_date: date, as_of: date, copy: str) -> Scorer:
    """The scorer of the date `as_of` with the `evaluated` or `published` models of a night.

    Raises: DataError if a model folder is missing.
    """
    bundle = artifacts.require(store, config, "retriever", as_of, "retriever")
    histories = shards_folder(store, bundle)
    model_folder.read_manifest(histories)  # raises an error if the folder is incomplete
    rankers, trees = (_copy(artifacts.require(store, config, kind, run_date, RANKER), copy) for kind in (RANKER, GBDT))
    names, modes = config.retriever.names, trained_modes(config)
    given = given_features.folder_of(store, config, as_of)
    return Scorer(rankers, trees, histories, bundle, as_of_day(as_of), names, modes, given)


def evaluated(store: Store, config: Config, run_date: date) -> dict[date, Scorer]:
    """A night's `evaluated` models as scorers, one for each window that the modes are judged on, newest first.

    Raises: DataError if a model folder is missing.
    """
    judged = model_folder.read_manifest(artifacts.require(store, config, GBDT, run_date, RANKER))["judged"]
    return {as_of: scorer(store, config, run_date, as_of, EVALUATED) for as_of in map(date.fromisoformat, judged)}


def _copy(folder: str, copy: str) -> str | None:
    return f"{folder}/{copy}" if copy in model_folder.read_manifest(folder)["models"] else None


def _dense(rows: pa.Table | pa.RecordBatch, names: Sequence[str]) -> Array:
    """(n, F) float32, in Fortran order, as Arrow stores columns."""
    return np.stack([_numbers(rows, name) for name in names]).astype(np.float32, copy=False).T


def _numbers(rows: pa.Table | pa.RecordBatch, name: str) -> Array:
    column = rows.column(name)  # only a record batch's column has, and needs, `zero_copy_only`
    found = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return np.asarray(found)


@lru_cache(maxsize=1024)
def _ranker_of(models: str, mode: str, scenario: int) -> str:
    """Folder of a mode's ranker for a scenario; that of `ranker` if the scenario had too few rows to train its own."""
    own = f"{models}/{mode}/{scenario}"
    return own if model_folder.exists(own) else f"{models}/{RANKER}"


@lru_cache(maxsize=4)
def _spread(network: str) -> float:
    return float(model_folder.read_manifest(network)["spread"])


@lru_cache(maxsize=4)
def _coding(trees: str) -> Coding | None:
    manifest = model_folder.read_manifest(trees)
    return from_arrays(manifest[GIVEN], partial(model_folder.open_array, trees)) if GIVEN in manifest else None


@lru_cache(maxsize=4)
def _features(folder: str, day: int) -> FeatureBook:
    return FeatureBook({day: folder})


@lru_cache(maxsize=4)
def _open(trees: str) -> "gbdt.Ensemble":
    from recspark.models.rankers import gbdt

    manifest = model_folder.read_manifest(trees)
    texts = [model_folder.read_text(trees, gbdt.booster_file(m)) for m in range(len(manifest["members"]))]
    return gbdt.from_texts(manifest, texts)
