"""Which items follow which: items near each other in users' sequences, as they are and smoothed by a low-rank spectrum.

A pair of items k events apart counts 1 / k. The spectral views also relate items that no user has both of: they use
the leading eigenvectors of the symmetric, degree-normalised graph, as graph filters do. Only the order of events is
used, not their time.

Shapes: U users, E events, I items, D rank of the spectrum.
Reference: Shen et al. 2021, How Powerful is Graph Convolution for Recommendation?
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.histories import Histories, owners
from recspark.models.retrievers.affinity import places_from_end
from recspark.models.retrievers.catalogue import Catalogue

POWER_STEPS = 8  # of the subspace iteration
OVERSAMPLING = 16
WEAK = 0.25  # keeps half of the popularity that a cosine (power 0.5) removes
WALKS = {  # view: which events, which matrix, the power of the counts to divide by
    "forward_recent": ("recent", "forward_II", 0.5),
    "forward_last": ("last", "forward_II", 0.5),
    "forward_weak": ("recent", "forward_II", WEAK),
    "near_recent": ("recent", "near_II", 0.5),
    "near_last": ("last", "near_II", 0.5),
    "near_weak": ("recent", "near_II", WEAK),
    "whole": ("whole", "whole_II", 0.5),
    "whole_weak": ("whole", "whole_II", WEAK),
}
VIEWS = (*WALKS, "spectral_recent", "filter_recent", "spectral_last", "filter_last", "spectral_whole", "filter_whole")


@dataclass(frozen=True)
class Settings:
    """`length`: how many of a user's newest events count; `rank`: D; `decay_per_event`: the weight of an event relative
    to the next one (exponential decay by place)."""

    length: int = 50
    rank: int = 64
    decay_per_event: float = 0.7


@dataclass(frozen=True)
class Model:
    """Sums over all users, float32.

    `forward_II`, `near_II`, `whole_II` (CSR): pairs with j after i, weighted 1 / distance; the same in either order;
    users with both items. `counts_I`: events of an item. `late_I`: the same, an event decayed by its places from the
    user's end: recent popularity where no time is known. `factors_ID`: F F^T is the smoothed `near_II`. `filter_ID`:
    orthonormal columns, the leading directions of `whole_II`.
    """

    settings: Settings
    forward_II: sp.csr_matrix
    near_II: sp.csr_matrix
    whole_II: sp.csr_matrix
    counts_I: Array
    late_I: Array
    factors_ID: Array
    filter_ID: Array


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int) -> Model:
    """Count the pairs of each user's positive events. Memory: 24 bytes a pair of events, and the pairs of items."""
    owner, item = _recent_events(histories, catalogue.num_items, settings.length)
    first, second, distance = _pairs(owner, item, settings.length)
    shape = (catalogue.num_items, catalogue.num_items)
    forward = sp.csr_matrix((1.0 / distance, (first, second)), shape=shape).astype(np.float32)
    near = (forward + forward.T).tocsr()
    ones = sp.csr_matrix((np.ones(len(first), np.float32), (first, second)), shape=shape)
    counts = np.bincount(item, minlength=catalogue.num_items).astype(np.float32)
    weight = settings.decay_per_event ** places_from_end(owner, len(histories.offsets) - 1)
    late = np.bincount(item, weight, catalogue.num_items).astype(np.float32)
    whole = (ones + ones.T).tocsr()
    strength, vectors = _spectrum(_scaled(near, counts, 0.5), settings.rank, seed)
    factors = (vectors * np.sqrt(np.maximum(strength, 0.0))).astype(np.float32)
    directions = _spectrum(_scaled(whole, counts, 0.5), settings.rank, seed)[1].astype(np.float32)
    return Model(settings, forward, near, whole, counts, late, factors, directions)


def _recent_events(histories: Histories, num_items: int, length: int) -> tuple[Array, Array]:
    """(user, item) of the last `length` positive events of each user that name a known item."""
    owner = owners(histories.offsets)
    known = (histories.weight > 0) & (histories.item_idx >= 0) & (histories.item_idx < num_items)
    owner, item = owner[known], histories.item_idx[known]
    back = places_from_end(owner, len(histories.offsets) - 1)
    return owner[back < length], item[back < length]


def _pairs(owner: Array, item: Array, length: int) -> tuple[Array, Array, Array]:
    """Every ordered pair of one user's events: first item, second item, distance in events; equal items left out."""
    first, second, distance = [item[:0]], [item[:0]], [owner[:0]]
    for step in range(1, length):
        same = (owner[step:] == owner[:-step]) & (item[step:] != item[:-step])
        first.append(item[:-step][same])
        second.append(item[step:][same])
        distance.append(np.full(int(same.sum()), step))
    return np.concatenate(first), np.concatenate(second), np.concatenate(distance)


def _scaled(matrix_II: sp.csr_matrix, counts_I: Array, power: float) -> sp.csr_matrix:
    """Divide by (count + 1) ** power of both items: 0.5 is a cosine, less keeps popularity."""
    scale = sp.diags((counts_I + 1.0) ** -power)
    return (scale @ matrix_II @ scale).tocsr().astype(np.float32)


def _spectrum(matrix_II: sp.csr_matrix, rank: int, seed: int) -> tuple[Array, Array]:
    """The (<= rank) largest eigenvalues, descending, and their vectors (I, <= rank), float64, by subspace iteration."""
    width = min(rank + OVERSAMPLING, matrix_II.shape[0])
    matrix = matrix_II.astype(np.float64)
    basis = np.random.default_rng(seed).standard_normal((matrix.shape[0], width))
    for _ in range(POWER_STEPS):
        basis = np.linalg.qr(matrix @ basis)[0]
    values, vectors = np.linalg.eigh(basis.T @ (matrix @ basis))
    leading = np.argsort(-values)[: min(rank, width)]
    return values[leading], basis @ vectors[:, leading]


def views(model: Model, histories: Histories) -> dict[str, Array]:
    """Every view of a block of users, float32 (U, I) each, named as in `VIEWS`; 0: not scored.

    `recent` decays an event by its places from the user's end, `last` uses the last event only, `whole` weighs all
    events the same; `weak` divides by popularity only half as much.
    """
    histories_of = {kind: _history(model, histories, kind) for kind in ("recent", "last", "whole")}
    dense = {
        name: _walk(histories_of[kind], getattr(model, matrix), model.counts_I, power)
        for name, (kind, matrix, power) in WALKS.items()
    }
    for name, factors_ID, power in (("spectral", model.factors_ID, WEAK), ("filter", model.filter_ID, 0.5)):
        damped = sp.diags((model.counts_I + 1.0) ** -power).astype(np.float32)
        for kind, history in histories_of.items():
            dense[f"{name}_{kind}"] = np.asarray((history @ damped) @ factors_ID) @ factors_ID.T
    return dense


def _walk(history_UI: sp.csr_matrix, matrix_II: sp.csr_matrix, counts_I: Array, power: float) -> Array:
    """One step from the user's items, divided by (count + 1) ** power at both ends, float32 (U, I)."""
    scale = ((counts_I + 1.0) ** -power).astype(np.float32)
    reached = ((history_UI @ sp.diags(scale)) @ matrix_II).toarray()
    return np.asarray(reached * scale, dtype=np.float32)


def _history(model: Model, histories: Histories, kind: str) -> sp.csr_matrix:
    """(U, I) float32 weights of the user's items."""
    owner, item = _recent_events(histories, len(model.counts_I), model.settings.length)
    num_users = len(histories.offsets) - 1
    back = places_from_end(owner, num_users)
    weight = {"recent": model.settings.decay_per_event**back, "last": back == 0, "whole": np.ones(len(back))}[kind]
    return sp.csr_matrix((weight.astype(np.float32), (owner, item)), shape=(num_users, len(model.counts_I)))


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """How often the item follows the user's last events, float32 (U, I); zeros for a user without a known item. The
    query's scenario and time change nothing."""
    return _walk(_history(model, histories, "recent"), model.forward_II, model.counts_I, 0.5)


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) of a model folder."""
    arrays = {"counts": model.counts_I, "late": model.late_I, "factors": model.factors_ID, "filter": model.filter_ID}
    for name, matrix in (("forward", model.forward_II), ("near", model.near_II), ("whole", model.whole_II)):
        arrays |= {f"{name}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
    return {"settings": vars(model.settings)}, arrays


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`: the same scores to the last bit."""
    num_items = len(arrays["counts"])

    def matrix(name: str) -> sp.csr_matrix:
        parts = tuple(arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
        return sp.csr_matrix(parts, shape=(num_items, num_items))

    stored = (matrix(name) for name in ("forward", "near", "whole"))
    rest = (arrays[name] for name in ("counts", "late", "factors", "filter"))
    return Model(Settings(**manifest["settings"]), *stored, *rest)
