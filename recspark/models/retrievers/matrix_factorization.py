"""Latent factors: truncated SVD of the user-item matrix, with popular items and busy users scaled down.

A user's factors are computed from the history (folded in), so new users need no training. The SVD is scikit-learn's
randomised one.

Shapes: U users, I items, F factors.
Reference: Cremonesi et al. 2010 (PureSVD); Nikolakopoulos et al. 2019 (EigenRec).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.config.retrievers import MatrixFactorization
from recspark.histories import Histories
from recspark.models.retrievers import affinity
from recspark.models.retrievers.catalogue import Catalogue


@dataclass(frozen=True)
class Model:
    """`items_IF` float32 (I, F), orthonormal columns."""

    items_IF: Array
    settings: MatrixFactorization


def fit(histories: Histories, catalogue: Catalogue, settings: MatrixFactorization, seed: int = 0) -> Model:
    """Factors of users' positives, the same for the same seed; fewer than `num_factors` if there are fewer users or
    items."""
    from sklearn.utils.extmath import randomized_svd  # here: scoring does not need it

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
    """The history projected on the factors, float32 (U, F); zeros without history. The query's scenario and time change
    nothing."""
    history_UI = affinity.decayed_positives(histories, len(model.items_IF), model.settings.half_life_days)
    return np.asarray(history_UI @ model.items_IF)


def vectors(model: Model) -> Array:
    """float32 (I, F): a score is the product of a query and an item's vector."""
    return model.items_IF


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """The history projected on the factors and back, float32 (U, I); zeros (not scored) without history."""
    return np.asarray(queries(model, histories, scenario_idx, time) @ vectors(model).T)


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) of a model folder."""
    return {"settings": model.settings.model_dump()}, {"items_IF": model.items_IF}


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`."""
    return Model(arrays["items_IF"], MatrixFactorization(**manifest["settings"]))
