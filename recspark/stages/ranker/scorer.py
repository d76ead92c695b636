"""Score candidates with the learnt rankers; the retrievers' own scores stand in the candidates already.

Made for mapInArrow: `Scorer` is a few paths and travels to the workers; a worker process opens a model once, and loads
torch or LightGBM only when that mode is asked of it. A row's scores depend on the row alone, so batches and partitions
do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from scipy.special import logit

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.schema import Config
from recspark.models.rankers.blend import blend
from recspark.stages.ranker import stage as ranker
from recspark.stages.retriever import stage as retriever
from recspark.tables import histories as histories_table
from recspark.warehouse.store import Store
from recspark.windows import as_of_day

if TYPE_CHECKING:
    from recspark.models.rankers import gbdt

EDGE = 1e-12  # a probability of 0 or 1 has no logit


@dataclass(frozen=True)
class Scorer:
    """Callable on rows of `candidates` of one date.

    `models`: folder of the learnt ones, None if none could be learnt; `histories`, `bundle`: the date's folders;
    `retrievers`: those that work; `learnt`: the modes of `models`.
    """

    models: str | None
    histories: str
    bundle: str
    day: int
    retrievers: tuple[str, ...]
    learnt: tuple[str, ...] = (ranker.RANKER, ranker.GBDT, ranker.BLEND)

    @property
    def modes(self) -> tuple[str, ...]:
        """What can order a list tonight: the learnt modes, which are asked of this object, then the retrievers."""
        return (*(self.learnt if self.models else ()), *self.retrievers)

    def columns(self, modes: Sequence[str]) -> tuple[str, ...]:
        """Columns of candidates that the modes read."""
        parts = {ranker.RANKER, ranker.GBDT} if ranker.BLEND in modes else set()
        wanted = parts.union(modes) - {ranker.BLEND}
        found = (
            [model_folder.read_manifest(f"{self.models}/{ranker.GBDT}")["features"]] if ranker.GBDT in wanted else []
        )
        if wanted - {ranker.GBDT}:
            found.append(model_folder.read_manifest(f"{self.models}/{ranker.RANKER}")["spec"]["features"])
        return (c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX, *dict.fromkeys(name for names in found for name in names))

    def __call__(self, rows: pa.Table | pa.RecordBatch, modes: Sequence[str]) -> dict[str, Array]:
        """Learnt mode -> float64 (n,), higher is better within a list; a torch ranker's: probability of the first
        task."""
        parts = (ranker.RANKER, ranker.GBDT) if ranker.BLEND in modes else ()
        wanted = dict.fromkeys((*parts, *(mode for mode in modes if mode != ranker.BLEND)))
        found = {mode: self._boosted(rows) if mode == ranker.GBDT else self._neural(rows, mode) for mode in wanted}
        if parts:
            found[ranker.BLEND] = self._blended(found[ranker.RANKER], found[ranker.GBDT])
        return {mode: found[mode] for mode in modes}

    def _blended(self, probabilities: Array, trees: Array) -> Array:
        widths = (_spread(f"{self.models}/{ranker.RANKER}"), _open(f"{self.models}/{ranker.GBDT}").spread)
        return blend((logit(np.clip(probabilities, EDGE, 1 - EDGE)), trees), widths)

    def _boosted(self, rows: pa.Table | pa.RecordBatch) -> Array:
        from recspark.models.rankers import gbdt  # here: see the top

        trees = _open(f"{self.models}/{ranker.GBDT}")
        return np.asarray(gbdt.predict(trees, _dense(rows, trees.features), num_threads=1), np.float64)

    def _neural(self, rows: pa.Table | pa.RecordBatch, mode: str) -> Array:
        from recspark.training.ranking import scoring  # here: see the top

        folder = f"{self.models}/{mode}"
        ids = tuple(_numbers(rows, name) for name in (c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX))
        dense = _dense(rows, scoring.features(f"{self.models}/{ranker.RANKER}"))
        if mode == ranker.RANKER:
            return scoring.probabilities(folder, self.histories, self.bundle, self.day, dense, ids)
        out = np.empty(len(dense))
        for scenario in np.unique(ids[0]):
            here = ids[0] == scenario
            model = _ranker_of(str(self.models), mode, int(scenario))
            mine = tuple(column[here] for column in ids)
            out[here] = scoring.probabilities(model, self.histories, self.bundle, self.day, dense[here], mine)
        return out


def scorer(store: Store, config: Config, run_date: date, as_of: date, copy: str) -> Scorer:
    """The scorer of one date with the `evaluated` or `published` models of a night."""
    run = ranker.folder(store, config, ranker.examples(store, config, run_date))
    learnt: Sequence[str] = model_folder.read_manifest(run)["models"]
    models = f"{run}/{copy}" if copy in learnt else None
    bundle = retriever.folder(store, config, as_of)
    histories = histories_table.ensure_shards(store, config, as_of, bundle)
    return Scorer(models, histories, bundle, as_of_day(as_of), config.retriever.names, ranker.modes(config))


def _dense(rows: pa.Table | pa.RecordBatch, names: Sequence[str]) -> Array:
    """(n, F) float32, in Fortran order: Arrow's columns as they lie, one after the other."""
    return np.stack([_numbers(rows, name) for name in names]).astype(np.float32, copy=False).T


def _numbers(rows: pa.Table | pa.RecordBatch, name: str) -> Array:
    column = rows.column(name)  # only a record batch's column takes, and needs, the permission to copy
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


@lru_cache(maxsize=1024)
def _ranker_of(models: str, mode: str, scenario: int) -> str:
    """Folder of a transfer's ranker for a scenario, or of `ranker` where the scenario had too few rows for its own."""
    own = f"{models}/{mode}/{scenario}"
    return own if model_folder.exists(own) else f"{models}/{ranker.RANKER}"


@lru_cache(maxsize=4)
def _spread(network: str) -> float:
    return float(model_folder.read_manifest(network)["spread"])


@lru_cache(maxsize=4)
def _open(trees: str) -> "gbdt.Model":
    from recspark.models.rankers import gbdt

    return gbdt.from_texts(model_folder.read_manifest(trees), model_folder.read_text(trees, gbdt.BOOSTER))
