"""Ranking features of lists that each have a date of their own: what was known of an item up to the day before.

`features.ranking_features` has one date for all rows; a benchmark or a log of impressions has thousands. Counts are
differences of positions in one sorted array of (item, day), so a window costs two binary searches.
Shapes: Q lists, n rows, I items, S scenarios, W windows, R columns of scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array
from recspark.histories import Histories, owners

WINDOWS = (7, 14, 30, 60, 90, 180, 365, 730, 0)  # days before the list's own; 0 = all of them
SHORT, LONG = WINDOWS.index(30), WINDOWS.index(365)
PAST = max(WINDOWS) + 1  # unused days before the first, so that no window reaches into another item's days


@dataclass(frozen=True)
class Lists:
    """List q is for row q of `histories` (the user's events that may be used), in `scenario_idx[q]`, on the day of
    `time[q]` (days, NaN = unknown), and ranks `item_idx[offsets[q]:offsets[q + 1]]`."""

    histories: Histories
    scenario_idx: Array
    time: Array
    offsets: Array
    item_idx: Array

    @property
    def owner(self) -> Array:
        """List of every row (n,) int64."""
        return owners(self.offsets)


@dataclass(frozen=True)
class Record:
    """Statistics of the training events: sorted keys (cell x span + day) by scenario x item, by item and by scenario;
    `counts` float64 (S + 1, I), the last row all scenarios; mean `value` (I,)."""

    own_keys: Array
    all_keys: Array
    day_keys: Array
    first_day: int
    span: int
    counts: Array
    value: Array


def record(histories: Histories, num_items: int, num_scenarios: int) -> Record:
    """Statistics of the positive training events. Events without a time count in `counts` and `value` only."""
    h = histories
    positive = h.weight > 0
    cell = h.scenario_idx[positive].astype(np.int64) * num_items + h.item_idx[positive]
    counts = np.bincount(cell, minlength=num_scenarios * num_items).reshape(-1, num_items).astype(np.float64)
    timed = positive & np.isfinite(h.time)
    day = np.floor(h.time[timed]).astype(np.int64)
    first, last = (int(day.min()), int(day.max())) if len(day) else (0, 0)
    span = last - first + PAST + 2
    at = day - first + PAST
    item, scenario = h.item_idx[timed].astype(np.int64), h.scenario_idx[timed].astype(np.int64)
    known = positive & np.isfinite(h.value)
    total = np.bincount(h.item_idx[known], h.value[known], minlength=num_items)
    rated = np.bincount(h.item_idx[known], minlength=num_items)
    return Record(
        own_keys=np.sort((scenario * num_items + item) * span + at),
        all_keys=np.sort(item * span + at),
        day_keys=np.sort(scenario * span + at),
        first_day=first,
        span=span,
        counts=np.vstack((counts, counts.sum(axis=0))),
        value=np.where(rated > 0, total / np.maximum(rated, 1), np.nan),
    )


def windowed(keys: Array, rec: Record, cell: Array, time: Array) -> tuple[Array, Array]:
    """Events of each cell (m,) strictly before the day of `time`: counts float32 (m, W) over WINDOWS, and (m, 2)
    days since the last and since the first one, NaN without any."""
    day = np.floor(np.nan_to_num(time, nan=float(rec.first_day))).astype(np.int64)
    at = day - rec.first_day + PAST
    order = np.argsort(cell * rec.span + np.clip(at, 0, rec.span - 1))  # the searches stay in cache
    at, base = at[order], cell[order] * rec.span
    high = np.searchsorted(keys, base + np.clip(at, 0, rec.span - 1))
    start = np.searchsorted(keys, base)
    counts = np.empty((len(cell), len(WINDOWS)), dtype=np.float32)
    for w, days in enumerate(WINDOWS):
        low = np.searchsorted(keys, base + np.clip(at - days, 0, rec.span - 1)) if days else start
        counts[order, w] = high - low
    padded, has = np.append(keys, 0), high > start
    today = np.floor(time[order]) - rec.first_day + PAST + base
    ages = np.full((len(cell), 2), np.nan)
    ages[order, 0] = np.where(has, today - padded[np.maximum(high - 1, 0)], np.nan)
    ages[order, 1] = np.where(has, today - padded[np.minimum(start, len(keys))], np.nan)
    return counts, ages


def above(values: Array, offsets: Array) -> Array:
    """Share of a row's list with a larger value, float32 (n,) in 0..1: 0 = the largest; ties are equal; NaN is last."""
    owner = owners(offsets)
    clean = np.where(np.isnan(values), -np.inf, values)
    order = np.lexsort((-clean, owner))
    ranked, of = clean[order], owner[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (ranked[1:] != ranked[:-1]) | (of[1:] != of[:-1])
    first = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    out = np.empty(len(order), dtype=np.float32)
    out[order] = (first - offsets[of]) / np.maximum(np.diff(offsets)[of], 1)
    return out


def features(
    scores: Array, names: Sequence[str], lists: Lists, rec: Record, time_features: bool = True
) -> tuple[list[str], Array]:
    """(names, float32 (n, F)); NaN = unknown. A row depends on its own list only.

    `scores` (n, R): the retrievers' columns. `time_features=False` leaves out the features that use a time: windows,
    ages, gaps; the caller must leave out retrievers whose scores use time.
    """
    columns = {name: scores[:, r] for r, name in enumerate(names)}
    columns |= _item_columns(lists, rec)
    compared = list(columns)
    if time_features:
        timed = _time_columns(lists, rec)
        columns |= timed
        compared += list(timed)
    ranked = {f"{name}_above": above(columns[name], lists.offsets) for name in compared}
    columns |= ranked | _user_columns(lists, rec, time_features)
    out = np.empty((len(lists.item_idx), len(columns)), dtype=np.float32)
    for f, values in enumerate(columns.values()):
        out[:, f] = values
    return list(columns), out


def _item_columns(lists: Lists, rec: Record) -> dict[str, Array]:
    """Features of the item from all training events, without times."""
    item, scenario = lists.item_idx, lists.scenario_idx[lists.owner]
    own, everywhere = rec.counts[scenario, item], rec.counts[-1, item]
    return {
        "item_count": np.log1p(everywhere),
        "item_count_scenario": np.log1p(own),
        "item_share_scenario": (own + 0.5) / (everywhere + 1.0),
        "item_scenarios": (rec.counts[:-1] > 0).sum(axis=0)[item],
        "item_value": rec.value[item],
    }


def _time_columns(lists: Lists, rec: Record) -> dict[str, Array]:
    """Counts over the windows before the list's day, in its scenario and in all, with trend, age and idle days."""
    owner = lists.owner
    time, item = lists.time[owner], lists.item_idx.astype(np.int64)
    cell = lists.scenario_idx[owner].astype(np.int64) * rec.counts.shape[1] + item
    columns = {}
    for where, keys, of in (("", rec.all_keys, item), ("_scenario", rec.own_keys, cell)):
        counts, ages = windowed(keys, rec, of, time)
        for w, days in enumerate(WINDOWS):
            columns[f"item_count{where}_{days or 'before'}"] = np.log1p(counts[:, w])
        columns[f"item_trend{where}"] = np.log((counts[:, SHORT] + 0.5) / (counts[:, LONG] + 2.0))
        columns[f"item_idle{where}"], columns[f"item_age{where}"] = ages.T
    return columns


def _user_columns(lists: Lists, rec: Record, time_features: bool) -> dict[str, Array]:
    """Features of the list's user and scenario, and of the item compared with the user's averages."""
    h, owner, item = lists.histories, lists.owner, lists.item_idx
    num_lists = len(lists.time)
    of = owners(h.offsets)

    def mean(values: Array) -> Array:
        known = np.isfinite(values)
        count = np.bincount(of[known], minlength=num_lists)
        total = np.bincount(of[known], values[known], minlength=num_lists)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    popular, value = mean(np.log1p(rec.counts[h.scenario_idx, h.item_idx])), mean(h.value.astype(np.float64))
    own = np.log1p(rec.counts[lists.scenario_idx[owner], item])
    columns = {
        "user_events": np.log1p(np.diff(h.offsets))[owner],
        "user_popularity": popular[owner],
        "user_value": value[owner],
        "scenario_events": np.log1p(rec.counts[:-1].sum(axis=1))[lists.scenario_idx][owner],
        "popularity_vs_user": own - popular[owner],
        "value_vs_user": rec.value[item] - value[owner],
    }
    if not time_features:
        return columns
    days = np.floor(lists.time)
    gap = days[of] - np.floor(h.time)
    last, oldest = np.full(num_lists, np.nan), np.full(num_lists, np.nan)
    np.fmin.at(last, of, gap)
    np.fmax.at(oldest, of, gap)
    age = windowed(rec.all_keys, rec, h.item_idx.astype(np.int64), h.time)[1][:, 1]
    item_age = windowed(rec.all_keys, rec, item.astype(np.int64), lists.time[owner])[1][:, 1]
    new_day = np.diff(of, prepend=-1).astype(bool) | np.diff(gap, prepend=np.nan).astype(bool)
    recent = windowed(rec.day_keys, rec, lists.scenario_idx.astype(np.int64), lists.time)[0][:, WINDOWS.index(90)]
    return columns | {
        "user_idle": last[owner],
        "user_age": oldest[owner],
        "user_today": np.bincount(of[gap == 0], minlength=num_lists)[owner],
        "user_days": np.log1p(np.bincount(of[new_day], minlength=num_lists))[owner],
        "age_vs_user": item_age - mean(np.nan_to_num(age))[owner],
        "scenario_events_90": np.log1p(recent)[owner],
    }
