"""Features of rows that each have a date of their own: how often an item was bought before the row's day.

`features` is as of one date for a whole night; here every row has its own date, and only events strictly before that
day count, so a benchmark whose test events are years apart cannot leak. Times are days since the epoch.
Shapes: n rows, E events, I items, U users.
"""

from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array
from recspark.histories import Histories, owners

WINDOW_DAYS = (1, 3, 7, 14, 30, 60, 90, 180, 365)
HALF_LIVES = (5.0, 20.0, 60.0)
NTH_LAST = (1, 2, 3, 5, 10)
ITEM_TIMES = (
    *(f"item_count_{days}" for days in WINDOW_DAYS), "item_count_before",
    *(f"item_fading_{days:g}" for days in HALF_LIVES),
    *(f"item_idle_{nth}" for nth in NTH_LAST), "item_age",
)  # fmt: skip
USER_ORDER = ("user_events", "user_scenario_share", "user_last_in_scenario", "user_popularity", "item_count")
USER_TIMES = ("user_idle", "user_same_day", "user_age", "day")


@dataclass(frozen=True)
class Timeline:
    """Times of the positive events of each item, ascending: item i owns time[offsets[i]:offsets[i + 1]]."""

    offsets: Array
    time: Array


def timeline(histories: Histories, num_items: int) -> Timeline:
    """Sort the events by item and time; events without a time are left out."""
    known = (histories.weight > 0) & np.isfinite(histories.time)
    item, time = histories.item_idx[known], np.floor(histories.time[known])
    order = np.lexsort((time, item))
    return Timeline(np.concatenate(([0], np.cumsum(np.bincount(item, minlength=num_items)))), time[order])


def item_times(events: Timeline, item_idx: Array, day: Array) -> Array:
    """(n, len(ITEM_TIMES)) float32 as of the start of each row's `day`; NaN = fewer events before it than needed."""
    day = np.floor(day)
    low, end = events.offsets[item_idx], _before(events, item_idx, day)
    count = end - low
    columns = [end - _before(events, item_idx, day - days) for days in WINDOW_DAYS]
    columns.append(count)
    padded = np.append(events.time, np.nan)
    last = np.where(count > 0, end - 1, len(events.time))
    for half_life in HALF_LIVES:
        decayed = np.append(_decayed_counts(events, half_life), 0.0)[last]
        columns.append(np.log1p(decayed * np.exp2((np.where(count > 0, padded[last], day) - day) / half_life)))
    columns += [np.where(count >= nth, day - padded[np.maximum(end - nth, 0)], np.nan) for nth in NTH_LAST]
    columns.append(np.where(count > 0, day - padded[low], np.nan))
    return np.asarray(np.stack(columns, axis=1), np.float32)


def _before(events: Timeline, item_idx: Array, day: Array) -> Array:
    """Place of the first event of the item that is not before the day."""
    if not len(events.time):
        return np.zeros(len(item_idx), dtype=np.int64)
    base, span = events.time.min(), events.time.max() - events.time.min() + 2
    keys = owners(events.offsets) * span + (events.time - base)
    return np.asarray(np.searchsorted(keys, item_idx * span + np.clip(day - base, 0, span - 1)))


def _decayed_counts(events: Timeline, half_life: float) -> Array:
    """(E,) for each event: the number of its item's events up to it, each counting half after one half-life.

    One step per place in an item's row, so no sum runs over other items and no precision is lost."""
    sizes = np.diff(events.offsets)
    found = np.ones(len(events.time))
    for place in range(1, int(sizes.max(initial=0))):
        at = events.offsets[:-1][sizes > place] + place
        found[at] += found[at - 1] * np.exp2((events.time[at - 1] - events.time[at]) / half_life)
    return found


def user_order(histories: Histories, user_pos: Array, item_idx: Array, scenario_idx: Array, counts_I: Array) -> Array:
    """(n, len(USER_ORDER)) float32, computed without times. `scenario_idx` (U,): the scenario of each user's query;
    `counts_I`: all events of every item."""
    num_users = len(histories.offsets) - 1
    owner = owners(histories.offsets)
    events = np.diff(histories.offsets)
    popularity = np.log1p(counts_I)
    here = (histories.scenario_idx == scenario_idx[owner]).astype(np.float64)
    share = np.bincount(owner, here, num_users) / np.maximum(events, 1)
    taste = np.bincount(owner, popularity[histories.item_idx], num_users) / np.maximum(events, 1)
    last = np.full(num_users, np.nan)
    last[owner] = here  # of a user's events the last one stays
    columns = (*(x[user_pos] for x in (events, share, last, taste)), popularity[item_idx])
    return np.asarray(np.stack(columns, axis=1), np.float32)


def user_times(histories: Histories, user_pos: Array, day: Array) -> Array:
    """(n, len(USER_TIMES)) float32; `day` (U,): the day of each user's query; NaN for a user without events."""
    num_users = len(histories.offsets) - 1
    owner = owners(histories.offsets)
    first, last = np.full(num_users, np.nan), np.full(num_users, np.nan)
    last[owner], first[owner[::-1]] = histories.time, histories.time[::-1]
    same_day = np.bincount(owner, np.floor(histories.time) == np.floor(day)[owner], num_users)
    columns = (day - last, same_day, day - first, day)
    return np.asarray(np.stack([x[user_pos] for x in columns], axis=1), np.float32)
