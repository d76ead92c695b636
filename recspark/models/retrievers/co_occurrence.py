"""What goes together: item-to-item similarity from users' pairs of events, pairs close in time counting more.

Cosine with shrunk norms (Deshpande and Karypis 2004, Item-Based Top-N Recommendation Algorithms), kept as the
`neighbours` best of every item, so memory follows events and not the square of the catalogue.
Shapes: U users, E events, I items, S scenarios.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from recspark.features import Histories
from recspark.models.retrievers import affinity
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.popular import decay

PAIRS_A_BLOCK = 4_000_000  # pairs worked on at once, which bounds the temporaries


@dataclass(frozen=True)
class Settings:
    """`pair_half_life_days`: a pair of a user's events this far apart counts half. `half_life_days`: so does a history
    event this much older than the user's newest one when scores are asked for. `shrinkage` is added to the norms: how
    many events an item needs to be believed. `history`: the newest events of a user that make pairs, which bounds the
    cost of the busiest users. `own`: pairs of the asked scenario only, one similarity each."""

    pair_half_life_days: float = float("inf")
    half_life_days: float = float("inf")
    shrinkage: float = 5.0
    neighbours: int = 500
    history: int = 100
    own: bool = False


@dataclass(frozen=True)
class Model:
    """Similarity of item i in scenario row r: row r * num_items + i of a CSR matrix; one scenario row when pooled."""

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    num_items: int
    settings: Settings


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int = 0) -> Model:
    """Similarities from users' positive events; `seed` changes nothing. Every scenario has a row when `own`."""
    num_items = catalogue.num_items
    rows = catalogue.num_scenarios if settings.own else 1
    total = sp.csr_matrix((rows * num_items, num_items), dtype=np.float64)
    for left, right, weight, row in _pairs(histories, settings):
        cell = row.astype(np.int64) * num_items + left
        total += sp.csr_matrix((weight, (cell, right)), shape=total.shape)
    events = np.flatnonzero(histories.weight > 0)
    row = histories.scenario_idx[events] if settings.own else np.zeros(len(events), dtype=np.int64)
    count = np.bincount(row.astype(np.int64) * num_items + histories.item_idx[events], minlength=rows * num_items)
    norm = 1.0 / np.sqrt(count + settings.shrinkage)
    total.data *= norm[np.repeat(np.arange(len(norm)), np.diff(total.indptr))]
    total.data *= norm[(np.repeat(np.arange(rows), np.diff(total.indptr[::num_items])) * num_items) + total.indices]
    kept = _best(total, settings.neighbours)
    return Model(kept.indptr.astype(np.int64), kept.indices, kept.data.astype(np.float32), num_items, settings)


def _pairs(h: Histories, settings: Settings) -> Iterator[tuple[np.ndarray, ...]]:
    """Blocks of (item, other item, weight, scenario row) over all ordered pairs of a user's newest positive events."""
    owner = np.repeat(np.arange(len(h.offsets) - 1, dtype=np.int64), np.diff(h.offsets))
    from_end = h.offsets[owner + 1] - np.arange(len(owner))
    kept = np.flatnonzero((h.weight > 0) & (from_end <= settings.history))
    item, time, owner = h.item_idx[kept], h.time[kept], owner[kept]
    row = h.scenario_idx[kept] if settings.own else np.zeros(len(kept), dtype=np.int64)
    size = np.bincount(owner, minlength=len(h.offsets) - 1)
    start = np.cumsum(size) - size
    ends = np.cumsum(size[owner])  # pairs up to and with each event
    low = 0
    while low < len(kept):
        high = max(low + 1, int(np.searchsorted(ends, (ends[low - 1] if low else 0) + PAIRS_A_BLOCK, side="right")))
        partners = size[owner[low:high]]
        left = np.repeat(np.arange(low, high), partners)
        within = np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
        right = start[owner[left]] + within
        differ = (item[left] != item[right]) & (row[left] == row[right])
        left, right = left[differ], right[differ]
        yield item[left], item[right], _closeness(time[left] - time[right], settings.pair_half_life_days), row[left]
        low = high


def _closeness(gap_days: np.ndarray, half_life_days: float) -> np.ndarray:
    """Weight of a gap; an unknown time is no reason to count less."""
    return decay(np.nan_to_num(np.abs(gap_days)), half_life_days)


def _best(matrix: sp.csr_matrix, neighbours: int) -> sp.csr_matrix:
    """The `neighbours` largest entries of every row, columns in order; equal ones: the lower column."""
    matrix.sum_duplicates()
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - matrix.indptr[row]
    chosen = place < neighbours
    shape = matrix.shape
    return sp.csr_matrix((matrix.data[chosen], (row[chosen], matrix.indices[chosen])), shape=shape)


def scores(model: Model, histories: Histories, scenario_idx: np.ndarray, time: np.ndarray) -> np.ndarray:
    """float32 (U, I): similarities to the user's items, summed; 0 says nothing. `time` (U,): events count by their age
    against the user's newest one, so the asked moment changes no order and is not used."""
    history_UI = affinity.faded(histories, model.num_items, model.settings.half_life_days)
    similarity = sp.csr_matrix(
        (model.data, model.indices, model.indptr), shape=(len(model.indptr) - 1, model.num_items), copy=False
    )
    out = np.zeros(history_UI.shape, dtype=np.float32)
    if not model.settings.own:
        return (history_UI @ similarity).toarray().astype(np.float32, copy=False)
    for scenario in np.unique(scenario_idx):
        users = np.flatnonzero(scenario_idx == scenario)
        part = similarity[scenario * model.num_items : (scenario + 1) * model.num_items]
        out[users] = (history_UI[users] @ part).toarray()
    return out


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(manifest, arrays) for training/checkpoint.py."""
    arrays = {"indptr": model.indptr, "indices": model.indices, "data": model.data}
    return {"num_items": model.num_items, "settings": asdict(model.settings)}, arrays


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Model:
    """The inverse of `to_arrays`."""
    settings = Settings(**manifest["settings"])
    return Model(arrays["indptr"], arrays["indices"], arrays["data"], manifest["num_items"], settings)
