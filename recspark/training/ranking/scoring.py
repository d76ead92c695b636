"""Score rows with the torch ranker of a folder, in a Spark worker or on a GPU machine without Spark.

The only module of scoring that loads torch, which costs a process seconds: import it where the ranker is really used.
A row's score depends on the row alone. What rows have in common is computed once: an item's vector once a process, a
user's history once for rows of that user that follow each other.

Shapes: n rows, F features, L history length.
"""

from functools import lru_cache

import numpy as np
import torch

from recspark import model_folder
from recspark.arrays import Array
from recspark.errors import DataError
from recspark.given_features import Coding, FeatureBook, names_in, numbers_and_codes
from recspark.histories import HistoryBook
from recspark.models.layers import Inputs
from recspark.models.rankers.network import Network
from recspark.training.ranking import saved

ROWS = 16_384  # scored at once; memory
EMPTY = torch.empty(0)


def features(model: str) -> tuple[str, ...]:
    """The columns that the model expects, in order."""
    return _open(model).spec.features


def probabilities(
    model: str,
    histories: str,
    bundle: str,
    day: int,
    dense: Array,
    ids: tuple[Array, Array, Array],
    given: str | None = None,
) -> Array:
    """Probability of the first task, float64 (n,).

    `model`, `histories`, `bundle`: folders; `day`: the histories' date, days since the epoch; `dense` (n, F) float32,
    fastest in Fortran order; `ids`: scenario_idx, user_idx, item_idx, (n,) each; `given`: folder of the given features,
    if the model has any.
    """
    network, vectors, book = _open(model), _vectors(model, bundle), _book(histories, day)
    out = np.empty(len(dense))
    for at in range(0, len(dense), ROWS):
        scenario, user, item = (column[at : at + ROWS] for column in ids)
        first = np.flatnonzero(np.diff(user, prepend=user[0] - 1))  # of rows that follow each other and share a user
        place = np.repeat(np.arange(len(first)), np.diff(first, append=len(user)))
        history = book.block(user[first], np.full(len(first), day), network.spec.history_length)
        with torch.inference_mode():
            inputs = Inputs(
                torch.from_numpy(np.asarray(dense[at : at + ROWS], np.float32)),
                torch.from_numpy(scenario.astype(np.int64)),
                item_B=vectors.places(item),
                history_BL=vectors.places(history),
                codes_U=EMPTY,
                content_UC=EMPTY,
                vectors_UD=vectors.table,
                user_B=torch.from_numpy(place),
                **_given(model, given, day, user, item),
            )
            out[at : at + ROWS] = torch.sigmoid(network(inputs)[:, 0].double()).numpy()
    return out


def _given(model: str, folder: str | None, day: int, user: Array, item: Array) -> dict[str, torch.Tensor]:
    coding = _coding(model, folder)
    if folder is None or coding is None:
        return {}
    numbers, texts = numbers_and_codes(_features(folder, day), coding, user, item, np.full(len(user), day))
    return {"numbers_BN": torch.from_numpy(numbers), "texts_BGT": torch.from_numpy(texts).long()}


class ItemVectors:
    """A network's vectors of items, each computed when it is first needed; `table`: row = `places` of the item.

    Memory: a table with a row of the embedding's size for every item, touched only for items that are needed, and a
    byte an item.
    """

    def __init__(self, network: Network, content: Array) -> None:
        self._encoder, self._content = network.encoder, content
        # the last row serves all items that neither the network nor the content knows
        num_rows = max(len(content) + 1, len(network.encoder.row_C)) + 1
        self.table = torch.zeros(num_rows, network.spec.embedding_dim)
        self._computed = np.zeros(num_rows, bool)

    def places(self, item_idx: Array) -> torch.Tensor:
        """int64, shaped as `item_idx`; 0 for -1, which is padding."""
        place = np.minimum(item_idx.astype(np.int64) + 1, len(self._computed) - 1)
        new = place[~self._computed[place]]
        if len(new):
            codes = np.unique(new)
            content = np.zeros((len(codes), self._content.shape[1]), np.float32)
            known = (codes > 0) & (codes <= len(self._content))
            content[known] = self._content[codes[known] - 1]
            with torch.inference_mode():
                self.table[codes] = self._encoder.vectors(torch.from_numpy(codes), torch.from_numpy(content))
            self._computed[codes] = True
        return torch.from_numpy(place)


@lru_cache(maxsize=32)  # a transfer has a ranker for every scenario
def _open(model: str) -> Network:
    torch.set_num_threads(1)  # Spark runs a task a core
    return saved.load(model)


@lru_cache(maxsize=4)  # to bound memory; a table that was dropped is computed again as it is needed
def _vectors(model: str, bundle: str) -> ItemVectors:
    return ItemVectors(_open(model), model_folder.open_array(bundle, "content"))


@lru_cache(maxsize=32)
def _coding(model: str, folder: str | None) -> Coding | None:
    """How the model reads given features.

    Raises: DataError if they are other ones than those that it was trained with."""
    encoder, spec = _open(model).encoder.given, _open(model).spec
    if encoder is None:
        return None
    coding = None if folder is None else Coding(names_in(folder), encoder.known(), ())
    if coding is None or (coding.numbers, coding.texts) != (spec.given_numbers, spec.given_texts):
        raise DataError(f"{folder}: found other features than {model} was trained with; run jobs/ranker.py first")
    return coding


@lru_cache(maxsize=4)
def _features(folder: str, day: int) -> FeatureBook:
    return FeatureBook({day: folder})


@lru_cache(maxsize=4)
def _book(histories: str, day: int) -> HistoryBook:
    return HistoryBook({day: histories})
