"""What the order of events, popularity in time and the user's habits say of every row of a list: features for `fusion`.

Features of a row come from its own user, item and moment alone, so lists of any size can be mixed: trees that learnt on
short validation lists order long ones.
Shapes: L lists, n rows, U users, F features, V views, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from recspark import timeline
from recspark.event_time_features import Lists
from recspark.histories import Histories, take
from recspark.models.retrievers import transitions

LISTS_A_BLOCK = 128  # of which every view over all items is held at once
TIMED = frozenset((*timeline.ITEM_TIMES, *timeline.USER_TIMES))


@dataclass(frozen=True)
class Rows:
    """`features` float32 (n, F) under `names`."""

    names: tuple[str, ...]
    features: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """One feature (n,)."""
        return self.features[:, self.names.index(name)]

    def without_time(self) -> "Rows":
        """The same without everything that knows a date or a time gap."""
        kept = [at for at, name in enumerate(self.names) if name not in TIMED]
        return Rows(tuple(self.names[at] for at in kept), self.features[:, kept])


def rows(
    model: transitions.Model,
    events: Histories,
    lists: Lists,
    extra: Mapping[str, np.ndarray] | None = None,
    views: np.ndarray | None = None,
) -> Rows:
    """All features. `events`: the training events, of which each row sees those before its own day; `extra`: further
    columns (n,) by name; `views` (n, V): those of `transitions`, where they are known already."""
    owner, item = lists.owner, lists.item_idx
    order = timeline.user_order(lists.histories, owner, item, lists.scenario_idx, model.counts_I)
    blocks = [
        view_rows(model, lists) if views is None else views,
        order,
        lists.scenario_idx[owner][:, None],
        np.log1p(model.late_I[item])[:, None],
    ]
    names = (*transitions.VIEWS, *timeline.USER_ORDER, "scenario", "item_late_count")
    if np.isfinite(lists.time).any():
        sold = timeline.timeline(events, len(model.counts_I))
        blocks.append(timeline.item_times(sold, item, lists.time[owner]))
        blocks.append(timeline.user_times(lists.histories, owner, lists.time))
        names += (*timeline.ITEM_TIMES, *timeline.USER_TIMES)
    blocks += [column[:, None] for column in (extra or {}).values()]
    return Rows((*names, *(extra or {})), np.concatenate(blocks, axis=1, dtype=np.float32))


def view_rows(model: transitions.Model, lists: Lists) -> np.ndarray:
    """The views of every row, float32 (n, V)."""
    out = np.empty((len(lists.item_idx), len(transitions.VIEWS)), dtype=np.float32)
    for low in range(0, len(lists.time), LISTS_A_BLOCK):
        high = min(low + LISTS_A_BLOCK, len(lists.time))
        found = transitions.views(model, take(lists.histories, np.arange(low, high)))
        at = slice(lists.offsets[low], lists.offsets[high])
        owner = np.repeat(np.arange(high - low), np.diff(lists.offsets[low : high + 1]))
        for v, name in enumerate(transitions.VIEWS):
            out[at, v] = found[name][owner, lists.item_idx[at]]
    return out
