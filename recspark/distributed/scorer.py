"""Score candidates in every mode that can order a list: the learnt rankers and the retrievers themselves.

Made for mapInArrow: `Scorer` is a few paths and travels to the workers; models are opened once a worker process.
A row's scores depend on the row alone, so batches and partitions do not matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
import pyarrow as pa
import torch

from recspark import columns as c
from recspark.config import RETRIEVERS, Config
from recspark.distributed import history_shards, ranker, retriever
from recspark.distributed.histories import as_of_day
from recspark.models.layers import look_up
from recspark.models.rankers import gbdt
from recspark.models.rankers.shared_bottom import SharedBottom
from recspark.tables.store import Store
from recspark.training import checkpoint, saved
from recspark.training.histories import HistoryBook

UNSCORED = -1e9  # below every retriever's score: it did not find the item
ROWS = 16_384  # scored at once; memory


@dataclass(frozen=True)
class Scorer:
    """Callable on rows of `candidates` of one date.

    `models`: folder of `ranker` and `gbdt`, None if none could be learnt; `histories`, `bundle`: the date's folders.
    """

    models: str | None
    histories: str
    bundle: str
    day: int

    @property
    def modes(self) -> tuple[str, ...]:
        """What the answer has, candidates for publication first."""
        return (*((ranker.RANKER, ranker.GBDT) if self.models else ()), *RETRIEVERS)

    def __call__(self, rows: pa.Table | pa.RecordBatch) -> dict[str, np.ndarray]:
        """mode -> float64 (n,), finite, higher is better within a list; `ranker`: probability of the first task."""
        scores = {name: _retriever_score(rows, name) for name in RETRIEVERS}
        if self.models is None:
            return scores
        network, trees = _open(self.models)
        names = network.spec.features
        dense = np.column_stack([_numbers(rows, name) for name in names]).astype(np.float32, copy=False)
        boosted = np.asarray(gbdt.predict(trees, dense, num_threads=1), np.float64)
        return {ranker.RANKER: self._neural(network, rows, dense), ranker.GBDT: boosted, **scores}

    def _neural(self, network: SharedBottom, rows: pa.Table | pa.RecordBatch, dense: np.ndarray) -> np.ndarray:
        ids = [_numbers(rows, name) for name in (c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX)]
        book, content = _date(self.histories, self.bundle, self.day)
        out = np.empty(len(dense))
        for at in range(0, len(dense), ROWS):
            scenario, user, item = (column[at : at + ROWS] for column in ids)
            history = book.block(user, np.full(len(user), self.day), network.spec.history_length)
            inputs = look_up(dense[at : at + ROWS], scenario, item, history, content)
            with torch.inference_mode():
                out[at : at + ROWS] = torch.sigmoid(network(inputs)[:, 0].double()).numpy()
        return out


def scorer(store: Store, config: Config, run_date: date, as_of: date, copy: str) -> Scorer:
    """The scorer of one date with the `evaluated` or `published` models of a night."""
    run = ranker.folder(store, config, ranker.examples(store, config, run_date))
    learnt: Sequence[str] = checkpoint.read_manifest(run)["models"]
    models = f"{run}/{copy}" if copy in learnt else None
    bundle = retriever.folder(store, config, as_of)
    return Scorer(models, history_shards.ensure(store, config, as_of, bundle), bundle, as_of_day(as_of))


def _retriever_score(rows: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    return np.nan_to_num(_numbers(rows, f"{name}_score").astype(np.float64), nan=UNSCORED)


def _numbers(rows: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    column = rows.column(name)  # only a record batch's column takes, and needs, the permission to copy
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


@lru_cache(maxsize=4)
def _open(models: str) -> tuple[SharedBottom, gbdt.Model]:
    torch.set_num_threads(1)  # Spark runs a task a core
    trees = f"{models}/{ranker.GBDT}"
    manifest, booster = checkpoint.read_manifest(trees), checkpoint.read_text(trees, gbdt.BOOSTER)
    return saved.load(f"{models}/{ranker.RANKER}"), gbdt.from_texts(manifest, booster)


@lru_cache(maxsize=4)
def _date(histories: str, bundle: str, day: int) -> tuple[HistoryBook, np.ndarray]:
    return HistoryBook({day: histories}), checkpoint.open_array(bundle, "content")
