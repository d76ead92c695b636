"""Popularity: exponentially decayed counts of each scenario, shrunk towards those of all scenarios together.

Shapes: G scenario groups, I items, C cells of a group and an item, E events, P pairs of a user and an item.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array
from recspark.cells import key_of, place_of, values_at


def exponential_decay(age_days: Array, half_life_days: float) -> Array:
    """The weight of an event of that age, float64: 1 for age 0, 1/2 after one half-life."""
    return np.asarray(np.exp2(-np.asarray(age_days, dtype=np.float64) / half_life_days))


def net_of_pairs(
    weight: Array, time: Array, pair: Array, num_pairs: int, as_of_days: float, half_life_days: float
) -> Array:
    """What each user adds to an item's net count, float64 (P,): the decayed weights of all events, but never more than
    one event of the same user with the largest weight and the newest time. So popularity counts people, and twenty
    thousand events of a robot are one.

    `weight`, `time` in days, `pair` (E,): the events; pair 0..P-1 is a user with an item. Weight 0 is no event.
    """
    decayed = weight * exponential_decay(as_of_days - time, half_life_days)
    largest, newest = np.zeros(num_pairs), np.full(num_pairs, -np.inf)
    np.maximum.at(largest, pair, np.abs(weight))
    counted = weight != 0
    np.maximum.at(newest, pair[counted], time[counted])
    most = largest * exponential_decay(as_of_days - newest, half_life_days)
    return np.clip(np.bincount(pair, decayed, minlength=num_pairs), -most, most)


@dataclass(frozen=True)
class Popular:
    """Popularity of I items in G scenario groups. `cells` (C,), sorted, as of recspark/cells.py: those with a net count
    above 0, `counts` (C,) float64; `share` (I,) of all counts; `total` (G,) of a group's; `shrinkage`: see `fit`."""

    cells: Array
    counts: Array
    share: Array
    total: Array
    shrinkage: float

    def of_group(self, group: int) -> Array:
        """Of every item in one group, float32 (I,)."""
        num_items = len(self.share)
        first = int(group) * num_items
        low, high = np.searchsorted(self.cells, [first, first + num_items])
        counts = np.zeros(num_items)
        counts[self.cells[low:high] - first] = self.counts[low:high]
        return _shrunk(counts, self.share, self.total[group], self.shrinkage)

    def at(self, group: Array, item: Array) -> Array:
        """Of some items in some groups (n,), float32 (n,)."""
        place = place_of(self.cells, key_of(group, item, len(self.share)))
        return _shrunk(values_at(self.counts, place, 0.0), self.share[item], self.total[group], self.shrinkage)


def fit(cells: Array, net: Array, num_groups: int, num_items: int, shrinkage: float) -> Popular:
    """Popularity from decayed net counts: (count + shrinkage * share in all groups) / (total + shrinkage).

    `cells` (C,), all different, in any order, and their net counts (C,): group * I + item. `shrinkage`: the number of
    events that the shares in all groups count for, so a group with few events is close to those shares, and a group
    without events equals them. A negative count (more returns than purchases) counts as 0.
    """
    order = np.argsort(cells)
    order = order[net[order] > 0]
    cells, counts = np.asarray(cells, dtype=np.int64)[order], np.asarray(net, dtype=np.float64)[order]
    of_items = np.bincount(cells % num_items, counts, minlength=num_items)
    total_G = np.bincount(cells // num_items, counts, minlength=num_groups)
    return Popular(cells, counts, of_items / (total_G.sum() or 1.0), total_G, shrinkage)


def to_arrays(model: Popular) -> dict[str, Array]:
    """For a model folder."""
    arrays = {"cells": model.cells, "counts": model.counts, "share": model.share, "total": model.total}
    return {f"popular_{name}": array for name, array in {**arrays, "shrinkage": np.array([model.shrinkage])}.items()}


def from_arrays(arrays: Mapping[str, Array]) -> Popular:
    """The inverse of `to_arrays`."""
    found = {name: arrays[f"popular_{name}"] for name in ("cells", "counts", "share", "total")}
    return Popular(**found, shrinkage=float(arrays["popular_shrinkage"][0]))


def _shrunk(counts: Array, share: Array, total: Array, shrinkage: float) -> Array:
    weight = np.asarray(total + shrinkage)
    known = (counts + shrinkage * share) / np.where(weight > 0, weight, 1.0)
    return np.asarray(np.where(weight > 0, known, share), dtype=np.float32)
