"""Score rows with the torch ranker of a folder: what a Spark worker, or a GPU machine without Spark, does with it.

The only module of scoring that loads torch, which costs a process seconds: import it where the ranker is really asked.
A row's score depends on the row alone. Shapes: n rows, F features.
"""

from functools import lru_cache

import numpy as np
import torch

from recspark.models.layers import look_up
from recspark.models.rankers.network import Network
from recspark.training import checkpoint, saved
from recspark.training.histories import HistoryBook

ROWS = 16_384  # scored at once; memory


def features(model: str) -> tuple[str, ...]:
    """The columns that the model expects, in order."""
    return _open(model).spec.features


def probabilities(
    model: str, histories: str, bundle: str, day: int, dense: np.ndarray, ids: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> np.ndarray:
    """Probability of the first task, float64 (n,).

    `model`, `histories`, `bundle`: folders; `day`: the histories' date, days since the epoch; `dense` (n, F) float32;
    `ids`: scenario_idx, user_idx, item_idx, (n,) each.
    """
    network, (book, content) = _open(model), _date(histories, bundle, day)
    out = np.empty(len(dense))
    for at in range(0, len(dense), ROWS):
        scenario, user, item = (column[at : at + ROWS] for column in ids)
        history = book.block(user, np.full(len(user), day), network.spec.history_length)
        inputs = look_up(dense[at : at + ROWS], scenario, item, history, content)
        with torch.inference_mode():
            out[at : at + ROWS] = torch.sigmoid(network(inputs)[:, 0].double()).numpy()
    return out


@lru_cache(maxsize=32)  # a transfer has a ranker for every scenario
def _open(model: str) -> Network:
    torch.set_num_threads(1)  # Spark runs a task a core
    return saved.load(model)


@lru_cache(maxsize=4)
def _date(histories: str, bundle: str, day: int) -> tuple[HistoryBook, np.ndarray]:
    return HistoryBook({day: histories}), checkpoint.open_array(bundle, "content")
