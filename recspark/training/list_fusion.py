"""Boosted trees over what several retrievers, popularity in time and the user's habits say of the items of a list.

The trees learn on validation lists, whose events no retriever has seen, and order test lists. Features of a row come
from its own user, item and moment alone, so lists of any size can be mixed.
Shapes: U questions (one a user), K items of a list, n = U K rows in order of question, F features, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recspark import timeline
from recspark.config import Gbdt
from recspark.features import Histories
from recspark.models.rankers import gbdt
from recspark.models.retrievers import transitions

USERS_A_BLOCK = 128
HOLDOUT = 0.2  # of the validation users, who stop the boosting; it is repeated with them for as many rounds
TIMED = frozenset((*timeline.ITEM_TIMES, *timeline.USER_TIMES))


@dataclass(frozen=True)
class Questions:
    """Lists to order: `histories` of U users, `scenario_idx` and `time` (U,) asked about, `item_idx` (U, K)."""

    histories: Histories
    scenario_idx: np.ndarray
    time: np.ndarray
    item_idx: np.ndarray


@dataclass(frozen=True)
class Rows:
    """`features` float32 (U, K, F) under `names`."""

    names: tuple[str, ...]
    features: np.ndarray

    def without_time(self) -> "Rows":
        """The same without everything that knows a date or a time gap."""
        kept = [at for at, name in enumerate(self.names) if name not in TIMED]
        return Rows(tuple(self.names[at] for at in kept), self.features[:, :, kept])


def rows(
    model: transitions.Model, events: Histories, asked: Questions, extra: Mapping[str, np.ndarray] | None = None
) -> Rows:
    """All features. `events`: the training events, of which each row sees those before its own day; `extra`: further
    columns (U, K) by name."""
    num_users, size = asked.item_idx.shape
    blocks = [at_lists(model, asked, slice(low, low + USERS_A_BLOCK)) for low in range(0, num_users, USERS_A_BLOCK)]
    user_pos, item = np.repeat(np.arange(num_users), size), asked.item_idx.ravel()
    sold = timeline.timeline(events, len(model.counts_I))
    order = timeline.user_order(asked.histories, user_pos, item, asked.scenario_idx, model.counts_I)
    columns = [
        np.concatenate(blocks),
        order.reshape(num_users, size, -1),
        np.broadcast_to(asked.scenario_idx[:, None, None], (num_users, size, 1)),
        timeline.item_times(sold, item, asked.time[user_pos]).reshape(num_users, size, -1),
        timeline.user_times(asked.histories, user_pos, asked.time).reshape(num_users, size, -1),
        *(column[:, :, None] for column in (extra or {}).values()),
    ]
    names = (*transitions.VIEWS, *timeline.USER_ORDER, "scenario", *timeline.ITEM_TIMES, *timeline.USER_TIMES)
    return Rows((*names, *(extra or {})), np.concatenate(columns, axis=2, dtype=np.float32))


def at_lists(model: transitions.Model, asked: Questions, users: slice) -> np.ndarray:
    """The views of some users at their lists' items, float32 (u, K, V)."""
    items = asked.item_idx[users].astype(np.int64)
    found = transitions.views(model, users_of(asked.histories, users.start, users.start + len(items)))
    return np.stack([np.take_along_axis(found[name], items, axis=1) for name in transitions.VIEWS], axis=2)


def users_of(histories: Histories, low: int, high: int) -> Histories:
    """The users low:high as a block of their own."""
    start, end = histories.offsets[low], histories.offsets[high]
    columns = {name: array[start:end] for name, array in vars(histories).items() if name != "offsets"}
    return Histories(offsets=histories.offsets[low : high + 1] - start, **columns)


def fit(valid: Rows, labels: np.ndarray, settings: Gbdt, seed: int, num_threads: int = 0) -> gbdt.Model:
    """Learn to order lists; `labels` (U, K). Raises DataError when no list has a positive."""
    num_users, size, width = valid.features.shape
    zeros, user = np.zeros(num_users * size, dtype=np.int64), np.repeat(np.arange(num_users), size)
    keys = np.stack((zeros, zeros, user, np.tile(np.arange(size), num_users)), axis=1)
    flat = valid.features.reshape(-1, width)
    holdout = np.random.default_rng(seed).random(num_users)[user] < HOLDOUT
    first = gbdt.fit(flat, labels.ravel(), keys, holdout, valid.names, settings, seed, None, num_threads)
    return gbdt.fit(flat, labels.ravel(), keys, holdout, valid.names, settings, seed, first.num_rounds, num_threads)


def predict(model: gbdt.Model, asked: Rows, num_threads: int = 0) -> np.ndarray:
    """Scores float64 (U, K), comparable within a list."""
    num_users, size, width = asked.features.shape
    return gbdt.predict(model, asked.features.reshape(-1, width), num_threads).reshape(num_users, size)
