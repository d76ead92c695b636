"""The retriever `popular` for flat histories: popularity with exponential decay, in a scenario shrunk towards all.

Shapes: U users, E events, I items, S scenarios.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recspark.histories import Histories
from recspark.models.retrievers import popular
from recspark.models.retrievers.catalogue import Catalogue


@dataclass(frozen=True)
class Settings:
    """`half_life_days`: an event this much older than the newest one counts half. `shrinkage`: of `popular.fit`."""

    half_life_days: float = float("inf")
    shrinkage: float = 0.0


@dataclass(frozen=True)
class Model:
    """`popular_SI` float32 (S, I)."""

    popular_SI: np.ndarray
    settings: Settings


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int = 0) -> Model:
    """Sum the decayed weights and shrink them; an event of unknown time counts in full. `seed` is not used."""
    h = histories
    known = np.isfinite(h.time)
    newest = h.time[known].max(initial=-np.inf)
    weight = h.weight * popular.exponential_decay(np.where(known, newest - h.time, 0.0), settings.half_life_days)
    cell = h.scenario_idx.astype(np.int64) * catalogue.num_items + h.item_idx
    counts = np.bincount(cell, weights=weight, minlength=catalogue.num_scenarios * catalogue.num_items)
    fitted = popular.fit(
        np.arange(len(counts)), counts, catalogue.num_scenarios, catalogue.num_items, settings.shrinkage
    )
    return Model(np.stack([fitted.of_group(group) for group in range(catalogue.num_scenarios)]), settings)


def scores(model: Model, histories: Histories, scenario_idx: np.ndarray, time: np.ndarray) -> np.ndarray:
    """float32 (U, I): popularity in each user's scenario (U,). The histories' events and `time` are not used."""
    return model.popular_SI[scenario_idx]


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(manifest, arrays) for training/checkpoint.py."""
    return {"settings": asdict(model.settings)}, {"popular_SI": model.popular_SI}


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Model:
    """The inverse of `to_arrays`."""
    return Model(arrays["popular_SI"], Settings(**manifest["settings"]))
