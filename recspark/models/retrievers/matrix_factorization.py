"""Few latent factors: truncated SVD of the user-item matrix, popular items and busy users scaled down (Cremonesi et al.
2010, PureSVD; Nikolakopoulos et al. 2019, EigenRec). A user is folded in from the history, so nobody is new to it.

The factors come from scikit-learn's randomised SVD. Shapes: U users, I items, F factors.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.histories import Histories
from recspark.models.retrievers import affinity
from recspark.models.retrievers.catalogue import Catalogue


@dataclass(frozen=True)
class Settings:
    """`num_factors`; `item_power`: items are divided by their count to this power; `half_life_days`: a history event
    this much older than the user's newest one counts half."""

    num_factors: int = 128
    item_power: float = 0.5
    half_life_days: float = float("inf")


@dataclass(frozen=True)
class Model:
    """`items_IF` float32 (I, F), orthonormal columns."""

    items_IF: Array
    settings: Settings


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int = 0) -> Model:
    """Factors of users' positives, the same for the same seed; fewer than asked where the data has no more."""
    from sklearn.utils.extmath import randomized_svd  # here: who only scores need not load it

    h = histories
    matrix = affinity.positives(h.offsets, h.item_idx, h.weight, catalogue.num_items).astype(np.float64)
    count_I = np.asarray(matrix.sum(axis=0)).ravel()
    count_U = np.asarray(matrix.sum(axis=1)).ravel()
    scale_I = np.where(count_I > 0, np.maximum(count_I, 1.0) ** -settings.item_power, 0.0)
    scaled = sp.diags(np.maximum(count_U, 1.0) ** -0.5) @ matrix @ sp.diags(scale_I)
    num_factors = min(settings.num_factors, *matrix.shape)
    _, _, items_FI = randomized_svd(scaled, num_factors, random_state=seed)
    return Model(np.ascontiguousarray(items_FI.T, dtype=np.float32), settings)


def queries(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """float32 (U, F): the history projected on the factors; zeros without history. Scenario and moment asked about
    change nothing."""
    return np.asarray(affinity.faded(histories, len(model.items_IF), model.settings.half_life_days) @ model.items_IF)


def vectors(model: Model) -> Array:
    """float32 (I, F): a score is the product of a query and an item's vector."""
    return model.items_IF


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """float32 (U, I): the history projected on the factors and back; zeros, which say nothing, without history."""
    return queries(model, histories, scenario_idx, time) @ vectors(model).T


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) for training/checkpoint.py."""
    return {"settings": asdict(model.settings)}, {"items_IF": model.items_IF}


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`."""
    return Model(arrays["items_IF"], Settings(**manifest["settings"]))
