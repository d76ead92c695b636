"""Ranking features from arrays: the one definition for training, tonight's candidates and benchmarks.

Everything is as of a date: `ItemStats` and `Histories` hold only events before it, so no feature can leak the future.
Shapes: U users of a block, E their events, n candidate rows, I items, S scenario groups, W windows, R retrievers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array
from recspark.cells import key_of, place_of, values_at
from recspark.config.retrievers import RETRIEVERS
from recspark.histories import Histories, owners, per_list

WINDOWS = (7, 14, 28, 56, 112, 224, 448, 730, 0)  # days back from as_of; 0 = all days
KINDS = ("score", "share", "rank")  # the features of a candidate from each retriever
YEAR_DAYS = 365.25
MIN_PRICE_STD = 0.1  # of log prices: the floor for a user with one purchase or one price


@dataclass(frozen=True)
class ItemStats:
    """Statistics of every item as of a date, over all users, in all scenarios; and `cell_...` in each scenario group.

    A positive event has a weight above 0.
    `counts` (W, I) float32: positive events in the last `WINDOWS[w]` days.
    `new_counts` (W, I) float32: of those, the first one of a user with the item.
    `first_time`, `last_time` (I,) float64: of the positive events, days since the epoch, NaN when none.
    `price`, `value` (I,) float32: mean unit price, and mean value of a positive event; NaN when unknown.
    `return_share` (I,) float32: negative events over all events, 0 when there are none.
    `cells` (C,) int64: scenario groups and items with a positive event, see recspark/cells.py; `cell_counts` (W, C)
    float32, `cell_first`, `cell_last` (C,) float64: the same as above, there.
    """

    counts: Array
    new_counts: Array
    first_time: Array
    last_time: Array
    price: Array
    value: Array
    return_share: Array
    cells: Array
    cell_counts: Array
    cell_first: Array
    cell_last: Array


@dataclass(frozen=True)
class Candidates:
    """Rows to rank. The rows of one (user, scenario) list need not be neighbours; nothing depends on the order.

    `user_pos` (n,) int: row of the user in the block; `scenario_idx`, `item_idx` (n,) int.
    `scores` (n, R) float32, columns as in config.RETRIEVERS: each retriever's score, also for items that only another
    one found; NaN: not scored. `memories` (n, 3) float32: those of `linear.memories`. `ranks` (n, R) float32: from 1,
    NaN where this retriever did not find the item.
    `list_idx` (n,) int: the list of the row; two small scenarios of one group are two lists of their common user.
    """

    user_pos: Array
    scenario_idx: Array
    item_idx: Array
    scores: Array
    memories: Array
    ranks: Array
    list_idx: Array


def _windowed(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{days or 'all'}" for days in WINDOWS)


# fmt: off
MEMORY_FEATURES = ("linear_recent", "linear_lasting", "linear_strongest")
RETRIEVER_FEATURES = (
    *(f"{retriever}_{kind}" for kind in KINDS for retriever in RETRIEVERS),
    "num_retrievers", "best_rank", "list_size", *MEMORY_FEATURES,
)
ITEM_FEATURES = (
    *_windowed("item_count"), *_windowed("item_count_scenario"), *_windowed("item_new_count"),
    *(f"item_trend_{days}" for days in WINDOWS[:-2]),  # beside the next longer window
    "item_age", "item_age_scenario", "item_idle", "item_idle_scenario",
    "item_new_share", "item_return_share", "item_price", "item_value",
)
USER_FEATURES = (
    "user_events", "user_items", "user_visits", "user_events_28", "user_items_per_visit",
    "user_idle", "user_age", "user_gap", "user_idle_in_gaps", "user_return_share",
    "user_price", "user_value", "user_hour_sin", "user_hour_cos", "user_weekend_share", "season_sin", "season_cos",
)
MATCH_FEATURES = (
    "price_vs_user", "price_z_user", "value_vs_user", "popularity_vs_user", "age_vs_user", "scenario_share",
)
# fmt: on
FEATURES = (*RETRIEVER_FEATURES, *ITEM_FEATURES, *USER_FEATURES, *MATCH_FEATURES)

MEANINGS = {  # a name, or its part before the last `_`: `{}` is the part after it
    **{f"{name}_score": f"Score of the retriever {name}; NaN: it did not find the item" for name in RETRIEVERS},
    **{f"{name}_share": "The same between 0, the lowest of the list, and 1, the highest" for name in RETRIEVERS},
    **{f"{name}_rank": f"Place in the list of the retriever {name}, from 1" for name in RETRIEVERS},
    "num_retrievers": "Retrievers that found the item",
    "best_rank": "The best place that any retriever gave",
    "list_size": "Candidates of the list",
    "linear_recent": "Score of linear with a quarter of its half-life",
    "linear_lasting": "Score of linear without decay",
    "linear_strongest": "The largest single weight of linear from an item of the history",
    "item_count": "Events of the item in the last {} days, logarithm",
    "item_count_scenario": "Events of the item in the scenario in the last {} days, logarithm",
    "item_new_count": "Events of the item by users new to it in the last {} days, logarithm",
    "item_trend": "Events a day in the last {} days beside those of the next longer window, logarithm",
    "item_age": "Days since the item's first event",
    "item_age_scenario": "Days since the item's first event in the scenario",
    "item_idle": "Days since the item's last event",
    "item_idle_scenario": "Days since the item's last event in the scenario",
    "item_new_share": "Share of the item's events by users who were new to it",
    "item_return_share": "Share of the item's events with a negative weight",
    "item_price": "Mean price of the item, logarithm",
    "item_value": "Mean value of the item's events, logarithm",
    "user_events": "Events of the user, logarithm",
    "user_items": "Distinct items of the user, logarithm",
    "user_visits": "Distinct times of the user's events, logarithm",
    "user_events_28": "Events of the user in the last 28 days, logarithm",
    "user_items_per_visit": "Items of a visit, mean",
    "user_idle": "Days since the user's last event",
    "user_age": "Days since the user's first event",
    "user_gap": "Mean days between the user's visits",
    "user_idle_in_gaps": "Days since the last event, in mean gaps between visits",
    "user_return_share": "Share of the user's events with a negative weight",
    "user_price": "Mean price of the user's events, logarithm",
    "user_value": "Mean value of the user's events, logarithm",
    "user_hour_sin": "Mean hour of the user's events as an angle, sine",
    "user_hour_cos": "Mean hour of the user's events as an angle, cosine",
    "user_weekend_share": "Share of the user's events on Saturday and Sunday",
    "season_sin": "Day of the year of as_of as an angle, sine",
    "season_cos": "Day of the year of as_of as an angle, cosine",
    "price_vs_user": "Price of the item minus the user's mean, logarithms",
    "price_z_user": "The same in standard deviations of the user's prices",
    "value_vs_user": "Value of the item minus the user's mean, logarithms",
    "popularity_vs_user": "Count of the item minus the mean of the user's items, logarithms",
    "age_vs_user": "Age of the item minus the mean age of the user's items when bought, days",
    "scenario_share": "Share of the user's events in this scenario",
}


def meaning(feature: str) -> str:
    """What one of FEATURES means."""
    if feature in MEANINGS:
        return MEANINGS[feature]
    name, _, window = feature.rpartition("_")
    return MEANINGS[name].format(window)


def features_of(retrievers: Sequence[str]) -> tuple[str, ...]:
    """`FEATURES` without those of the other retrievers, which are NaN in every row."""
    unused = {f"{name}_{kind}" for name in RETRIEVERS if name not in retrievers for kind in KINDS}
    unused.update(() if "linear" in retrievers else MEMORY_FEATURES)
    return tuple(name for name in FEATURES if name not in unused)


def ranking_features(histories: Histories, candidates: Candidates, stats: ItemStats, as_of_days: float) -> Array:
    """The features of each row, float32 (n, F), columns as in `FEATURES`; NaN = unknown.

    Times are in days; amounts and counts are logarithms. `as_of_days`: days since the epoch. A row depends on its own
    list, user and item only, so any split into blocks that keeps the lists whole gives the same numbers.
    Memory: a few float64 arrays of n x F.
    """
    num_groups = 1 + max(int(rows.scenario_idx.max(initial=0)) for rows in (histories, candidates))
    users = _user_profiles(histories, stats, as_of_days, num_groups)
    blocks = (
        _retriever_features(candidates),
        _item_features(candidates, stats, as_of_days),
        users.features[candidates.user_pos],
        _match_features(candidates, users, stats, as_of_days),
    )
    return np.concatenate(blocks, axis=1, dtype=np.float32)


def _retriever_features(candidates: Candidates) -> Array:
    """Scores, scores scaled to the list's range (0 = its lowest, 1 = its highest), ranks, and how many found it."""
    scores, ranks = candidates.scores, candidates.ranks
    if not len(scores):
        return np.zeros((0, len(RETRIEVER_FEATURES)))
    list_idx = np.unique(candidates.list_idx, return_inverse=True)[1]
    sizes = np.bincount(list_idx)
    low, high = (per_list(reduce, scores, list_idx, len(sizes), np.nan)[list_idx] for reduce in (np.fmin, np.fmax))
    spread = np.where(high > low, high - low, np.nan)
    num_retrievers = np.isfinite(ranks).sum(axis=1)
    best_rank = np.fmin.reduce(ranks, axis=1)
    columns = (scores, (scores - low) / spread, ranks, num_retrievers, best_rank, sizes[list_idx], candidates.memories)
    return np.column_stack(columns)


def _item_features(candidates: Candidates, stats: ItemStats, as_of_days: float) -> Array:
    """Counts of events over the windows and their trend, ages, price."""
    item = candidates.item_idx
    counts, new_counts = stats.counts[:, item], stats.new_counts[:, item]  # (W, n)
    place = place_of(stats.cells, key_of(candidates.scenario_idx, item, len(stats.price)))
    days = np.array(WINDOWS[:-1], dtype=np.float64)[:, None]
    rate = (counts[:-1] + 1.0) / days  # + 1: an item without events has a trend too
    trends = np.log(rate[:-1] / rate[1:])
    features = (
        *np.log1p(counts),
        *np.log1p(values_at(stats.cell_counts, place, 0.0)),
        *np.log1p(new_counts),
        *trends,
        as_of_days - stats.first_time[item],
        as_of_days - values_at(stats.cell_first, place, np.nan),
        as_of_days - stats.last_time[item],
        as_of_days - values_at(stats.cell_last, place, np.nan),
        new_counts[-1] / np.maximum(counts[-1], 1.0),
        stats.return_share[item],
        _log(stats.price[item]),
        _log(stats.value[item]),
    )
    return np.column_stack(features)


def _log(amounts: Array) -> Array:
    """Natural logarithm float64, NaN where there is no positive amount."""
    amounts = np.asarray(amounts, dtype=np.float64)
    return np.log(amounts, where=amounts > 0, out=np.full(amounts.shape, np.nan))


@dataclass(frozen=True)
class _Profiles:
    """Of each user: `features` (U, len(USER_FEATURES)), and the averages a candidate is compared with, each (U,)."""

    features: Array
    price: Array  # mean log price
    price_std: Array
    value: Array  # mean log value of a positive event
    popularity: Array  # mean log count of the items bought
    item_age: Array  # mean age of the items when bought
    scenario_share: Array  # (U, S)


def _user_profiles(histories: Histories, stats: ItemStats, as_of_days: float, num_groups: int) -> _Profiles:
    """Users' averages over their positive events; a user without any has counts of zero and averages of NaN."""
    h, num_users = histories, len(histories.offsets) - 1
    num_events, owner = np.diff(h.offsets), owners(h.offsets)
    bought = h.weight > 0

    def mean(values: Array) -> Array:
        known = bought & np.isfinite(values)
        count = np.bincount(owner[known], minlength=num_users)
        total = np.bincount(owner[known], values[known], minlength=num_users)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    price, value = _log(h.price), _log(h.value)
    mean_price = mean(price)
    hour, weekend = 2 * np.pi * (h.time % 1), (np.floor(h.time) + 3) % 7 >= 5  # day 0 was a Thursday
    season = 2 * np.pi * as_of_days / YEAR_DAYS
    activity = _activity(owner[bought], h.time[bought], h.item_idx[bought], num_users, as_of_days)
    returned = num_events - np.bincount(owner[bought], minlength=num_users)
    features = (
        *activity,
        returned / np.maximum(num_events, 1),
        mean_price,
        mean(value),
        mean(np.sin(hour)),
        mean(np.cos(hour)),
        mean(weekend.astype(np.float64)),
        np.full(num_users, np.sin(season)),
        np.full(num_users, np.cos(season)),
    )
    return _Profiles(
        features=np.column_stack(features),
        price=mean_price,
        price_std=np.sqrt(np.maximum(mean(price**2) - mean_price**2, 0.0)),
        value=mean(value),
        popularity=mean(np.log1p(stats.counts[-1, h.item_idx].astype(np.float64))),
        item_age=mean(h.time - stats.first_time[h.item_idx]),
        scenario_share=_shares(owner[bought], h.scenario_idx[bought], num_users, num_groups),
    )


def _activity(owner: Array, time: Array, item_idx: Array, num_users: int, as_of_days: float) -> tuple[Array, ...]:
    """user_events .. user_idle_in_gaps of `USER_FEATURES`; rows are positive events, sorted by user and then time."""
    events = np.bincount(owner, minlength=num_users)
    num_items = int(item_idx.max(initial=0)) + 1
    items = np.bincount(np.unique(owner.astype(np.int64) * num_items + item_idx) // num_items, minlength=num_users)
    # A visit is all events of a user at one time.
    opens = (np.diff(owner, prepend=-1) != 0) | (np.diff(time, prepend=np.nan) != 0)
    visits = np.bincount(owner[opens], minlength=num_users)
    recent = np.bincount(owner[time >= as_of_days - 28], minlength=num_users)
    first, last = np.full(num_users, np.nan), np.full(num_users, np.nan)
    last[owner] = time  # of a user's events the last one stays
    first[owner[::-1]] = time[::-1]
    idle = as_of_days - last
    gap = np.where(visits > 1, (last - first) / np.maximum(visits - 1, 1), np.nan)
    counts = (np.log1p(events), np.log1p(items), np.log1p(visits), np.log1p(recent), items / np.maximum(visits, 1))
    return (*counts, idle, as_of_days - first, gap, idle / np.maximum(gap, 1.0))


def _shares(owner: Array, scenario_idx: Array, num_users: int, num_rows: int) -> Array:
    """Share of each scenario in a user's events, (U, num_rows); zeros without events."""
    cell = owner.astype(np.int64) * num_rows + scenario_idx
    counts = np.bincount(cell, minlength=num_users * num_rows).reshape(num_users, num_rows)
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def _match_features(candidates: Candidates, users: _Profiles, stats: ItemStats, as_of_days: float) -> Array:
    """The candidate compared with the user's averages: differences of logarithms and of days."""
    user, item = candidates.user_pos, candidates.item_idx
    price = _log(stats.price[item]) - users.price[user]
    features = (
        price,
        price / np.maximum(users.price_std[user], MIN_PRICE_STD),
        _log(stats.value[item]) - users.value[user],
        np.log1p(stats.counts[-1, item]) - users.popularity[user],
        as_of_days - stats.first_time[item] - users.item_age[user],
        users.scenario_share[user, candidates.scenario_idx],
    )
    return np.column_stack(features)
