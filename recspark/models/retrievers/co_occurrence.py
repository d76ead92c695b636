"""Item-to-item similarity from the pairs of a user's events: a cosine with shrunk norms, of the `neighbours` most
similar items of each item. Memory grows with the events, not with the square of the catalogue.

Shapes: U users, E events, I items.
Reference: Deshpande and Karypis 2004, Item-Based Top-N Recommendation Algorithms.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.config.retrievers import CoOccurrence
from recspark.histories import Histories, owners, ranges
from recspark.models.retrievers import affinity
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.popular import exponential_decay

PAIRS_A_BLOCK = 4_000_000  # pairs worked on at once, which bounds the temporaries
UNIT = 2.0**30  # weights of pairs are rounded to whole multiples of 1 / UNIT


@dataclass(frozen=True)
class Model:
    """A CSR matrix (indptr, indices, data): row r * num_items + i has the items similar to item i in scenario r.

    `own`: every scenario has similarities of its own; if not, r = 0 is all scenarios together. `strongest`: a score is
    the largest similarity to one of the user's items, not the sum over them.
    """

    indptr: Array
    indices: Array
    data: Array
    num_items: int
    settings: CoOccurrence
    own: bool = False
    strongest: bool = False


def fit(histories: Histories, catalogue: Catalogue, settings: CoOccurrence, seed: int = 0, own: bool = False) -> Model:
    """Similarities from users' positive events; `own`: one matrix for each scenario, from pairs of events in it.
    `seed` changes nothing."""
    num_items = catalogue.num_items
    rows = catalogue.num_scenarios if own else 1
    total = sp.csr_matrix((rows * num_items, num_items), dtype=np.float64)
    for part in pair_weights(histories, settings, num_items, rows, own):
        total += part
    events = np.flatnonzero(histories.weight > 0)
    row = histories.scenario_idx[events] if own else np.zeros(len(events), dtype=np.int64)
    count = np.bincount(row.astype(np.int64) * num_items + histories.item_idx[events], minlength=rows * num_items)
    strips = []
    for r in range(rows):
        part = slice(r * num_items, (r + 1) * num_items)
        strips.append(similarity(total[part], count[part], count[part], settings))
    return assemble(sp.vstack(strips, format="csr"), num_items, settings, own)


def similarity(weight_RI: sp.csr_matrix, count_R: Array, count_I: Array, settings: CoOccurrence) -> sp.csr_matrix:
    """The most similar items of R items from the sums of their pair weights, (R, I) sparse; `count_R`, `count_I`:
    events of each item."""
    norm_R, norm_I = (1.0 / np.sqrt(np.maximum(n + settings.shrinkage, 1.0)) for n in (count_R, count_I))
    cosine = weight_RI.tocsr(copy=True)
    cosine.data *= norm_R[owners(cosine.indptr)]
    cosine.data *= norm_I[cosine.indices]
    return _best(cosine, settings.neighbours)


def assemble(kept: sp.csr_matrix, num_items: int, settings: CoOccurrence, own: bool = False) -> Model:
    """The model of all items' most similar items."""
    return Model(kept.indptr.astype(np.int64), kept.indices, kept.data.astype(np.float32), num_items, settings, own)


def pair_weights(
    h: Histories, settings: CoOccurrence, num_items: int, rows: int = 1, own: bool = False
) -> Iterator[sp.csr_matrix]:
    """Matrices (rows x I, I) that add up to the weights of all ordered pairs of a user's newest positive events.

    `own`: pairs within a scenario only, in the scenario's row. Weights are whole multiples of 1 / UNIT, so the sum over
    users is exact in any order.
    """
    owner = owners(h.offsets)
    newest = h.offsets[owner + 1] - np.arange(len(owner)) <= settings.history
    kept = np.flatnonzero((h.weight > 0) & newest)
    item, time, owner = h.item_idx[kept].astype(np.int64), h.time[kept], owner[kept]
    row = h.scenario_idx[kept].astype(np.int64) if own else np.zeros(len(kept), dtype=np.int64)
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
        yield left, start[owner[left]] + ranges(partners)
        low = high


def _closeness(gap_days: Array, half_life_days: float) -> Array:
    """Weight of a pair of events that far apart; 1 where a time is unknown."""
    return np.asarray(np.rint(exponential_decay(np.nan_to_num(np.abs(gap_days)), half_life_days) * UNIT) / UNIT)


def _best(matrix: sp.csr_matrix, neighbours: int) -> sp.csr_matrix:
    """The `neighbours` largest entries of every row, columns in order; of equal entries the lower column."""
    matrix.sum_duplicates()
    row = owners(matrix.indptr)
    order = np.lexsort((matrix.indices, -matrix.data, row))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - matrix.indptr[row]
    chosen = place < neighbours
    shape = matrix.shape
    return sp.csr_matrix((matrix.data[chosen], (row[chosen], matrix.indices[chosen])), shape=shape)


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """Sum of the similarities to the user's items, float32 (U, I); 0: not scored.

    `scenario_idx`, `time` (U,): of the query. Events are decayed by their age against the user's newest one, so `time`
    changes no order and is not used.
    """
    history_UI = affinity.decayed_positives(histories, model.num_items, model.settings.half_life_days)
    similarity_II = matrix(model)
    if not model.own:
        return _weigh(history_UI, similarity_II, model.strongest)
    out = np.zeros(history_UI.shape, dtype=np.float32)
    for scenario in np.unique(scenario_idx):
        users = np.flatnonzero(scenario_idx == scenario)
        part = similarity_II[scenario * model.num_items : (scenario + 1) * model.num_items]
        out[users] = _weigh(history_UI[users], part, model.strongest)
    return out


def matrix(model: Model) -> sp.csr_matrix:
    """The similarities, (scenario rows x I, I); nothing is copied."""
    shape = (len(model.indptr) - 1, model.num_items)
    return sp.csr_matrix((model.data, model.indices, model.indptr), shape=shape, copy=False)


def _weigh(history_UI: sp.csr_matrix, similarity_II: sp.csr_matrix, strongest: bool) -> Array:
    if strongest:
        return affinity.strongest(history_UI, similarity_II)
    return np.asarray((history_UI @ similarity_II).toarray(), dtype=np.float32)


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) of a model folder."""
    arrays = {"indptr": model.indptr, "indices": model.indices, "data": model.data}
    manifest = {"num_items": model.num_items, "settings": model.settings.model_dump()}
    return {**manifest, "own": model.own, "strongest": model.strongest}, arrays


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`."""
    settings = CoOccurrence(**manifest["settings"])
    rest = {name: manifest[name] for name in ("num_items", "own", "strongest")}
    return Model(arrays["indptr"], arrays["indices"], arrays["data"], settings=settings, **rest)
