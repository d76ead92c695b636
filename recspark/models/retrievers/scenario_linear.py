"""EASE with weights per scenario: pooled over all of them, own, or a blend of the two; the door of `linear`.

Shapes: U users, E events, I items, S scenarios. Memory: 4 I^2 bytes pooled, and 4 x the sum of (items of a scenario)^2
own.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from recspark.arrays import Array
from recspark.errors import ConfigError
from recspark.histories import Histories
from recspark.models.retrievers import affinity, linear
from recspark.models.retrievers.catalogue import Catalogue


@dataclass(frozen=True)
class Settings:
    """`l2`: of the pooled weights; `own_l2`: of a scenario's own, on the events in that scenario alone.

    `own_share`: how much the own weights count in a score, 0 = pooled only, 1 = own only (the other is not computed);
    `join` gives every scenario its own. `half_life_days`: an event this much older than its user's newest one counts
    half, in learning and in scoring. `power`: a user with n items counts n^-power in learning. `dropout` p adds
    p / (1 - p) of an item's count to its ridge (Steck 2020, EDLAE). `strongest`: a score is the largest weight of one
    of the user's items, not their sum. `max_items`: more are refused.
    """

    l2: float = 300.0
    own_l2: float = 100.0
    own_share: float = 0.0
    half_life_days: float = float("inf")
    power: float = 0.0
    dropout: float = 0.0
    strongest: bool = False
    max_items: int = 20_000


@dataclass(frozen=True)
class Model:
    """`pooled_II` float32 (I, I), or (0, 0) when nothing is pooled. Scenario s's own weights are over the items
    `own_items[item_offsets[s]:item_offsets[s + 1]]`, n of them, flat from `weight_offsets[s]`: float32 n x n by rows.
    `own_share` float64 (S,)."""

    pooled_II: Array
    own_items: Array
    item_offsets: Array
    own_weights: Array
    weight_offsets: Array
    own_share: Array
    num_items: int
    settings: Settings


def fit(histories: Histories, catalogue: Catalogue, settings: Settings, seed: int = 0) -> Model:
    """Closed form; `seed` changes nothing. Raises ConfigError above `max_items` items."""
    num_items, num_scenarios = catalogue.num_items, catalogue.num_scenarios
    if num_items > settings.max_items:
        raise ConfigError(
            f"linear: found {num_items} items, expected at most max_items = {settings.max_items} (4 bytes x items^2); "
            "raise max_items or use co_occurrence, which is sparse"
        )
    pooled = np.zeros((0, 0), dtype=np.float32)
    if settings.own_share < 1:
        pooled = linear.fit(_gram(histories, num_items, settings), settings.l2)
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


def _gram(histories: Histories, num_items: int, settings: Settings) -> Array:
    """X^T X float64 (I, I) of the faded positives, users scaled by the power of their number of items."""
    history_UI = affinity.faded(histories, num_items, settings.half_life_days).astype(np.float64)
    if settings.power:
        size = np.diff(history_UI.indptr)
        scale = np.maximum(size, 1).astype(np.float64) ** (-settings.power / 2)  # squared in the product
        history_UI.data *= np.repeat(scale, size)
    gram_II = linear.assemble(linear.gram_blocks(history_UI), num_items)
    gram_II[np.diag_indices(num_items)] /= 1.0 - settings.dropout  # 1 + p / (1 - p)
    return gram_II


def _own(h: Histories, scenario: int, num_items: int, settings: Settings) -> tuple[Array, Array]:
    """A scenario's items in order, and its weights over them, from the events that happened there."""
    here = h.scenario_idx == scenario
    found, item_idx = np.unique(h.item_idx[here], return_inverse=True)
    part = only(h, here)
    gram = _gram(replace(part, item_idx=item_idx), len(found), settings)
    return found.astype(np.int64), linear.fit(gram, settings.own_l2)


def only(h: Histories, kept: Array) -> Histories:
    """The events marked in `kept` (E,) bool, of the same users."""
    before = np.concatenate(([0], np.cumsum(kept)))
    return Histories(
        before[h.offsets],
        h.item_idx[kept],
        h.scenario_idx[kept],
        h.time[kept],
        h.weight[kept],
        h.value[kept],
        h.price[kept],
    )


def join(pooled: Model, own: Model, own_share: Array) -> Model:
    """One model of the pooled half of the first and the own half of the second, with a blend a scenario, (S,) in 0..1,
    as learnt on validation. Raises ConfigError when a half is missing or the two fade differently."""
    if not pooled.pooled_II.size or not len(own.own_items):
        raise ConfigError("linear: found no pooled or no own weights to blend; fit with own_share below 1 and above 0")
    if pooled.settings.half_life_days != own.settings.half_life_days:
        found = (pooled.settings.half_life_days, own.settings.half_life_days)
        raise ConfigError(f"linear: found half_life_days {found}, expected the same in both halves of a blend")
    settings = replace(own.settings, l2=pooled.settings.l2, own_share=float(np.mean(own_share)))
    share = np.asarray(own_share, dtype=np.float64)
    return replace(own, pooled_II=pooled.pooled_II, own_share=share, settings=settings)


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """float32 (U, I) for the scenario asked about, (U,): the weights of the user's items summed; 0 says nothing. Events
    fade by their age against the user's newest one, so the asked `time` changes no order and is not used."""
    history_UI = affinity.faded(histories, model.num_items, model.settings.half_life_days)
    weigh = affinity.strongest if model.settings.strongest else linear.scores
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
    """(manifest, arrays) for training/checkpoint.py."""
    names = ("pooled_II", "own_items", "item_offsets", "own_weights", "weight_offsets", "own_share")
    manifest = {"num_items": model.num_items, "settings": asdict(model.settings)}
    return manifest, {name: getattr(model, name) for name in names}


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`."""
    return Model(**arrays, num_items=manifest["num_items"], settings=Settings(**manifest["settings"]))
