"""Features for `fusion`: the order of events, popularity over time and the habits of the user, for every row of a list.

The features of a row depend on its own user, item and time alone, not on the other rows. So trees that learn on short
validation lists can rank long ones.

Shapes: L lists, n rows, U users, F features, V views, I items.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.research import timeline, transitions
from benchmarks.research.event_time_features import Lists
from recspark.histories import Histories, owners, take

LISTS_A_BLOCK = 128  # lists whose views of all items are in memory at once
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
        """The same rows without the features that use a date or a time gap."""
        kept = [at for at, name in enumerate(self.names) if name not in TIMED]
        return Rows(tuple(self.names[at] for at in kept), self.features[:, kept])


def rows(
    model: transitions.Model,
    events: Histories,
    lists: Lists,
    extra: Mapping[str, np.ndarray] | None = None,
    views: np.ndarray | None = None,
) -> Rows:
    """All features of the rows of `lists`.

    `events`: the training events; each row uses only those before its own day. `extra`: further columns (n,) by name.
    `views` (n, V): the result of `view_rows`, if it is known already.
    """
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
    """The scores of every view for every row, float32 (n, V)."""
    out = np.empty((len(lists.item_idx), len(transitions.VIEWS)), dtype=np.float32)
    for low in range(0, len(lists.time), LISTS_A_BLOCK):
        high = min(low + LISTS_A_BLOCK, len(lists.time))
        found = transitions.views(model, take(lists.histories, np.arange(low, high)))
        at = slice(lists.offsets[low], lists.offsets[high])
        owner = owners(lists.offsets[low : high + 1])
        for v, name in enumerate(transitions.VIEWS):
            out[at, v] = found[name][owner, lists.item_idx[at]]
    return out
