"""EASE on flat histories, with weights per scenario: pooled over all scenarios, each scenario's own, or a blend.

Memory: 4 I^2 bytes for the pooled weights, 4 x the sum of (items of a scenario)^2 for the own ones.
Shapes: U users, E events, I items, S scenarios.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.config.retrievers import Linear
from recspark.errors import ConfigError
from recspark.histories import Histories, keep
from recspark.models.retrievers import affinity, linear
from recspark.models.retrievers.catalogue import Catalogue

MAX_ITEMS = 18_000  # LAPACK of some builds of OpenBLAS dies at 23,000


@dataclass(frozen=True)
class Settings:
    """What the weights per scenario need beside the configuration of `linear`.

    `linear`: its `l2` is that of the pooled weights; its decay is by an event's age against its user's newest one, in
    training and in scoring. `own_l2`: of a scenario's own weights, which learn from the events in it alone.
    `own_share`: how much the own weights count in a score, 0 = pooled only, 1 = own only (the other is not computed);
    after `join` each scenario has its own share. `power`: a user with n items counts n^-power in training. `dropout` p
    adds p / (1 - p) of an item's count to its ridge (Steck 2020, EDLAE).
    """

    linear: Linear
    own_l2: float = 100.0
    own_share: float = 0.0
    power: float = 0.0
    dropout: float = 0.0


@dataclass(frozen=True)
class Model:
    """Pooled weights, and each scenario's own in flat arrays.

    `pooled_II`: float32 (I, I), or (0, 0) if nothing is pooled. Scenario s has own weights between the n items
    `own_items[item_offsets[s]:item_offsets[s + 1]]`: float32 n x n by rows, flat from `weight_offsets[s]`. `own_share`:
    float64 (S,). `strongest`: a score is the largest weight of one of the user's items, not the sum over them.
    """

    pooled_II: Array
    own_items: Array
    item_offsets: Array
    own_weights: Array
    weight_offsets: Array
    own_share: Array
    num_items: int
    settings: Settings
    strongest: bool = False


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int = 0) -> Model:
    """Weights in closed form; `seed` changes nothing.

    Raises: ConfigError for more than MAX_ITEMS items.
    """
    num_items, num_scenarios = catalogue.num_items, catalogue.num_scenarios
    if num_items > MAX_ITEMS:
        raise ConfigError(
            f"linear: found {num_items} items, expected at most {MAX_ITEMS} (a dense closed form for each scenario); "
            "use co_occurrence, which is sparse"
        )
    pooled = np.zeros((0, 0), dtype=np.float32)
    if settings.own_share < 1:
        pooled = linear.fit(_gram(histories, num_items, settings), settings.linear.l2, MAX_ITEMS)
    items, weights = [], []
    for scenario in range(num_scenarios if settings.own_share > 0 else 0):
        found, own = _own(histories, scenario, num_items, settings)
        items.append(found)
        weights.append(own.ravel())
    counts = np.array([len(found) for found in items] or [0] * num_scenarios, dtype=np.int64)
    return Model(
        pooled,
        np.concatenate([np.zeros(0, dtype=np.int64), *items]),
        np.concatenate(([0], np.cumsum(counts))),
        np.concatenate([np.zeros(0, dtype=np.float32), *weights]),
        np.concatenate(([0], np.cumsum(counts**2))),
        np.full(num_scenarios, settings.own_share),
        num_items,
        settings,
    )


def _gram(histories: Histories, num_items: int, settings: Settings) -> sp.csr_matrix:
    """X^T X float64 (I, I) of the decayed positives, users scaled by the power of their number of items."""
    half_life_days = settings.linear.half_life_days
    history_UI = affinity.decayed_positives(histories, num_items, half_life_days).astype(np.float64)
    if settings.power:
        size = np.diff(history_UI.indptr)
        scale = np.maximum(size, 1).astype(np.float64) ** (-settings.power / 2)  # squared in the product
        history_UI.data *= np.repeat(scale, size)
    gram_II = linear.assemble(linear.gram_blocks(history_UI), num_items)
    if settings.dropout:
        gram_II.setdiag(gram_II.diagonal() / (1.0 - settings.dropout))  # 1 + p / (1 - p)
    return gram_II


def _own(h: Histories, scenario: int, num_items: int, settings: Settings) -> tuple[Array, Array]:
    """A scenario's items in order, and the weights between them, from the events in that scenario."""
    here = h.scenario_idx == scenario
    found, item_idx = np.unique(h.item_idx[here], return_inverse=True)
    gram = _gram(replace(keep(h, here), item_idx=item_idx), len(found), settings)
    return found.astype(np.int64), linear.fit(gram, settings.own_l2, MAX_ITEMS)


def join(pooled: Model, own: Model, own_share: Array) -> Model:
    """One model of the pooled weights of the first and the own weights of the second; `own_share` (S,) in 0..1.

    Raises: ConfigError if weights are missing or the half-lives of the two differ.
    """
    if not pooled.pooled_II.size or not len(own.own_items):
        raise ConfigError("linear: found no pooled or no own weights to blend; fit with own_share below 1 and above 0")
    found = (pooled.settings.linear.half_life_days, own.settings.linear.half_life_days)
    if found[0] != found[1]:
        raise ConfigError(f"linear: found half_life_days {found}, expected the same in both halves of a blend")
    settings = replace(own.settings, linear=pooled.settings.linear, own_share=float(np.mean(own_share)))
    share = np.asarray(own_share, dtype=np.float64)
    return replace(own, pooled_II=pooled.pooled_II, own_share=share, settings=settings)


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """Sum of the weights of the user's items, float32 (U, I); 0: not scored.

    `scenario_idx`, `time` (U,): of the query. Events are decayed by their age against the user's newest one, so `time`
    changes no order and is not used.
    """
    history_UI = affinity.decayed_positives(histories, model.num_items, model.settings.linear.half_life_days)
    weigh = affinity.strongest if model.strongest else linear.scores
    out = np.zeros(history_UI.shape, dtype=np.float32)
    if model.pooled_II.size:
        out += weigh(history_UI, model.pooled_II)
        out *= (1.0 - model.own_share[scenario_idx]).astype(np.float32)[:, None]
    if not len(model.own_items):
        return out
    for scenario in np.unique(scenario_idx):
        users = np.flatnonzero(scenario_idx == scenario)
        items = model.own_items[model.item_offsets[scenario] : model.item_offsets[scenario + 1]]
        flat = model.own_weights[model.weight_offsets[scenario] : model.weight_offsets[scenario + 1]]
        own = weigh(history_UI[users][:, items], flat.reshape(len(items), len(items)))
        out[np.ix_(users, items)] += np.float32(model.own_share[scenario]) * own
    return out


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) of a model folder."""
    names = ("pooled_II", "own_items", "item_offsets", "own_weights", "weight_offsets", "own_share")
    settings = {**asdict(model.settings), "linear": model.settings.linear.model_dump()}
    manifest = {"num_items": model.num_items, "settings": settings, "strongest": model.strongest}
    return manifest, {name: getattr(model, name) for name in names}


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`."""
    settings = Settings(**{**manifest["settings"], "linear": Linear(**manifest["settings"]["linear"])})
    rest = {name: manifest[name] for name in ("num_items", "strongest")}
    return Model(settings=settings, **{**arrays, **rest})
