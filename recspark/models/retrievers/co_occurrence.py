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

from recspark.arrays import Array
from recspark.histories import Histories
from recspark.models.retrievers import affinity
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.popular import decay

PAIRS_A_BLOCK = 4_000_000  # pairs worked on at once, which bounds the temporaries
UNIT = 2.0**30


@dataclass(frozen=True)
class Settings:
    """What counts how much, and what is kept.

    `pair_half_life_days`: a pair of a user's events this far apart counts half. `half_life_days`: so does a history
    event this much older than the user's newest one when scores are asked for. `shrinkage` is added to the norms: how
    many events an item needs to be believed. `history`: the newest events of a user that make pairs, which bounds the
    cost of the busiest users. `own`: pairs of the asked scenario only, one similarity each. `strongest`: a score is the
    largest similarity to one of the user's items, not their sum.
    """

    pair_half_life_days: float = float("inf")
    half_life_days: float = float("inf")
    shrinkage: float = 5.0
    neighbours: int = 500
    history: int = 100
    own: bool = False
    strongest: bool = False


@dataclass(frozen=True)
class Model:
    """Similarity of item i in scenario row r: row r * num_items + i of a CSR matrix; one scenario row when pooled."""

    indptr: Array
    indices: Array
    data: Array
    num_items: int
    settings: Settings


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int = 0) -> Model:
    """Similarities from users' positive events; `seed` changes nothing. Every scenario has a row when `own`."""
    num_items = catalogue.num_items
    rows = catalogue.num_scenarios if settings.own else 1
    total = sp.csr_matrix((rows * num_items, num_items), dtype=np.float64)
    for part in pair_weights(histories, settings, rows, num_items):
        total += part
    events = np.flatnonzero(histories.weight > 0)
    row = histories.scenario_idx[events] if settings.own else np.zeros(len(events), dtype=np.int64)
    count = np.bincount(row.astype(np.int64) * num_items + histories.item_idx[events], minlength=rows * num_items)
    strips = []
    for r in range(rows):
        own = slice(r * num_items, (r + 1) * num_items)
        strips.append(similarity(total[own], count[own], count[own], settings))
    return assemble(sp.vstack(strips, format="csr"), num_items, settings)


def similarity(weight_RI: sp.csr_matrix, count_R: Array, count_I: Array, settings: Settings) -> sp.csr_matrix:
    """The best neighbours of some items from their summed pair weights, (R, I) sparse; `count`: events of each item."""
    norm_R, norm_I = (1.0 / np.sqrt(np.maximum(n + settings.shrinkage, 1.0)) for n in (count_R, count_I))
    cosine = weight_RI.tocsr(copy=True)
    cosine.data *= norm_R[np.repeat(np.arange(len(norm_R)), np.diff(cosine.indptr))]
    cosine.data *= norm_I[cosine.indices]
    return _best(cosine, settings.neighbours)


def assemble(kept: sp.csr_matrix, num_items: int, settings: Settings) -> Model:
    """The model of all items' neighbours."""
    return Model(kept.indptr.astype(np.int64), kept.indices, kept.data.astype(np.float32), num_items, settings)


def pair_weights(h: Histories, settings: Settings, rows: int, num_items: int) -> Iterator[sp.csr_matrix]:
    """Parts that add up to the weights of all ordered pairs of a user's newest positive events, (rows x I, I).

    Whole multiples of 1 / UNIT, so that parts of different users add up exactly in any order."""
    owner = np.repeat(np.arange(len(h.offsets) - 1, dtype=np.int64), np.diff(h.offsets))
    newest = h.offsets[owner + 1] - np.arange(len(owner)) <= settings.history
    kept = np.flatnonzero((h.weight > 0) & newest)
    item, time, owner = h.item_idx[kept].astype(np.int64), h.time[kept], owner[kept]
    row = h.scenario_idx[kept].astype(np.int64) if settings.own else np.zeros(len(kept), dtype=np.int64)
    shape = (rows * num_items, num_items)
    if np.isinf(settings.pair_half_life_days):  # every pair counts 1: a product of sparse matrices
        ones, side = np.ones(len(kept)), (len(h.offsets) - 1, num_items)
        for r in range(rows):
            here = row == r
            matrix = sp.csr_matrix((ones[here], (owner[here], item[here])), shape=side)
            part = (matrix.T @ matrix).tocoo()
            differ = part.row != part.col
            cell = r * num_items + part.row[differ].astype(np.int64)
            yield sp.csr_matrix((part.data[differ], (cell, part.col[differ])), shape=shape)
        return
    for first, second in _pairs(np.bincount(owner, minlength=len(h.offsets) - 1), owner):
        differ = (item[first] != item[second]) & (row[first] == row[second])
        left, right = first[differ], second[differ]
        weight = _closeness(time[left] - time[right], settings.pair_half_life_days)
        yield sp.csr_matrix((weight, (row[left] * num_items + item[left], item[right])), shape=shape)


def _pairs(size: Array, owner: Array) -> Iterator[tuple[Array, Array]]:
    """Blocks of (event, other event) over all ordered pairs within an owner; `size` (U,): events of each."""
    start, ends = np.cumsum(size) - size, np.cumsum(size[owner])  # ends: pairs up to and with each event
    low = 0
    while low < len(owner):
        high = max(low + 1, int(np.searchsorted(ends, (ends[low - 1] if low else 0) + PAIRS_A_BLOCK, side="right")))
        partners = size[owner[low:high]]
        left = np.repeat(np.arange(low, high), partners)
        within = np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
        yield left, start[owner[left]] + within
        low = high


def _closeness(gap_days: Array, half_life_days: float) -> Array:
    """Weight of a gap; an unknown time is no reason to count less."""
    return np.rint(decay(np.nan_to_num(np.abs(gap_days)), half_life_days) * UNIT) / UNIT


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


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """float32 (U, I): similarities to the user's items, summed; 0 says nothing. `time` (U,): events count by their age
    against the user's newest one, so the asked moment changes no order and is not used."""
    history_UI = affinity.faded(histories, model.num_items, model.settings.half_life_days)
    similarity_II = matrix(model)
    if not model.settings.own:
        return _weigh(history_UI, similarity_II, model.settings)
    out = np.zeros(history_UI.shape, dtype=np.float32)
    for scenario in np.unique(scenario_idx):
        users = np.flatnonzero(scenario_idx == scenario)
        part = similarity_II[scenario * model.num_items : (scenario + 1) * model.num_items]
        out[users] = _weigh(history_UI[users], part, model.settings)
    return out


def matrix(model: Model) -> sp.csr_matrix:
    """The similarities, (scenario rows x I, I); nothing is copied."""
    shape = (len(model.indptr) - 1, model.num_items)
    return sp.csr_matrix((model.data, model.indices, model.indptr), shape=shape, copy=False)


def _weigh(history_UI: sp.csr_matrix, similarity_II: sp.csr_matrix, settings: Settings) -> Array:
    if settings.strongest:
        return affinity.strongest(history_UI, similarity_II)
    return (history_UI @ similarity_II).toarray().astype(np.float32, copy=False)


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) for training/checkpoint.py."""
    arrays = {"indptr": model.indptr, "indices": model.indices, "data": model.data}
    return {"num_items": model.num_items, "settings": asdict(model.settings)}, arrays


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`."""
    settings = Settings(**manifest["settings"])
    return Model(arrays["indptr"], arrays["indices"], arrays["data"], manifest["num_items"], settings)
