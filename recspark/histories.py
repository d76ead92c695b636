"""Users' histories as flat arrays with offsets: in memory, from Arrow, and on disk in shards of users.

A history folder holds `shard-<s>` folders (users s * USERS_A_SHARD up to the next) and a manifest with the shards that
exist. A shard is memory-mapped when one of its users is needed, so memory does not grow with the number of users.

Shapes: U users, E events, L lists of any length, n rows of all lists. List l owns rows offsets[l]:offsets[l + 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array

EVENT_FIELDS = (c.ITEM_IDX, c.SCENARIO_IDX, "time", c.WEIGHT, c.VALUE, "price")  # of HISTORIES rows, as lists
USERS_A_SHARD = 1 << 16
STORED = (c.ITEM_IDX, c.SCENARIO_IDX, "time")  # arrays of a shard, beside its offsets
LENGTH = 50  # events kept of each user


@dataclass(frozen=True)
class Histories:
    """Events of a block of users, sorted by user and then time; user u owns rows offsets[u]:offsets[u + 1].

    Shapes: `offsets` (U + 1,) int64; `item_idx`, `scenario_idx` (E,) int; `time` (E,) float64, days since the epoch;
    `weight` (E,) float, negative = undone; `value`, `price` (E,) float, NaN when unknown.
    """

    offsets: Array
    item_idx: Array
    scenario_idx: Array
    time: Array
    weight: Array
    value: Array
    price: Array


def take(histories: Histories, users: Array, drop: int = 0) -> Histories:
    """The histories of `users` (Q,), in that order, without the newest `drop` events of each.

    A user with no more than `drop` events keeps all of them. With `drop` = 1 the newest known event takes the place of
    one that lies between history and outcome, so training lists are as far ahead of their histories as the real ones.
    """
    sizes = np.diff(histories.offsets)[users]
    kept = np.where(sizes > drop, sizes - drop, sizes)
    rows = np.repeat(histories.offsets[users], kept) + ranges(kept)
    h = histories
    arrays = (h.item_idx, h.scenario_idx, h.time, h.weight, h.value, h.price)
    return Histories(np.concatenate(([0], np.cumsum(kept))), *(array[rows] for array in arrays))


def keep(histories: Histories, kept: Array) -> Histories:
    """The same users with only the events that are True in `kept` (E,)."""
    columns = {name: array[kept] for name, array in vars(histories).items() if name != "offsets"}
    return Histories(offsets=np.concatenate(([0], np.cumsum(kept)))[histories.offsets], **columns)


def owners(offsets: Array) -> Array:
    """The list of each row, int64 (n,): with `Histories.offsets` the user of each event, with a CSR `indptr` its row.

    >>> owners(np.array([0, 2, 2, 3]))
    array([0, 0, 2])
    """
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def ranges(sizes: Array) -> Array:
    """0..n-1 for each n of `sizes` (L,), one after the other: the place of each row in its list.

    >>> ranges(np.array([2, 0, 3]))
    array([0, 1, 0, 1, 2])
    """
    return np.asarray(np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes))


def per_list(reduce: np.ufunc, values: Array, list_idx: Array, num_lists: int, start: float) -> Array:
    """Reduce the rows of each list, beginning with `start`: (L,) from `values` (n,), or (L, R) from (n, R).

    `list_idx` (n,) in 0..L-1, in any order; `reduce` must not depend on the order (minimum, fmin, maximum, fmax).
    """
    if values.ndim == 2:  # column by column: ufunc.at is fast for one dimension only
        return np.stack([per_list(reduce, column, list_idx, num_lists, start) for column in values.T], axis=1)
    found = np.full(num_lists, start, values.dtype)
    reduce.at(found, list_idx, values)
    return found


def from_arrow(batch: pa.RecordBatch) -> Histories:
    """The list columns of HISTORIES rows as flat arrays; Arrow has the same layout, so nothing is copied."""
    items = batch.column(c.ITEM_IDX)
    offsets = items.offsets.to_numpy().astype(np.int64)
    flat = {name: batch.column(name).flatten().to_numpy() for name in EVENT_FIELDS}
    return Histories(offsets=offsets - offsets[0], **flat)


def save_shard(
    folder: str,
    shard: int,
    user_idx: Array,
    offsets: Array,
    item_idx: Array,
    scenario_idx: Array,
    time: Array,
) -> None:
    """Write the newest LENGTH events of each user of a shard.

    `user_idx` (U,) distinct; events of user_idx[u] are rows offsets[u]:offsets[u + 1], oldest first; `time` in days.
    """
    order = np.argsort(user_idx)
    lengths = np.minimum(np.diff(offsets), LENGTH)[order]
    ends = offsets[1:][order]
    kept = np.repeat(ends - lengths, lengths) + ranges(lengths)
    counts = np.zeros(USERS_A_SHARD, np.int64)
    counts[user_idx[order] - shard * USERS_A_SHARD] = lengths
    arrays = {
        "offsets": np.concatenate(([0], np.cumsum(counts))),
        "item_idx": item_idx[kept].astype(np.int32),
        "scenario_idx": scenario_idx[kept].astype(np.int32),
        "time": time[kept].astype(np.float64),
    }
    model_folder.save(f"{folder}/shard-{shard}", {"shard": shard, "users": len(user_idx)}, arrays)


def erase_users(folder: str, users: Array) -> int:
    """Remove the events of `users` (U,), numbers, from a folder of shards; returns how many. Nobody may be reading."""
    removed = 0
    for shard in model_folder.read_manifest(folder)["shards"]:
        path = f"{folder}/shard-{shard}"
        mine = users[users // USERS_A_SHARD == shard] - shard * USERS_A_SHARD
        offsets = model_folder.open_array(path, "offsets")
        sizes = np.diff(offsets)
        gone = int(sizes[mine].sum())
        if not gone:
            continue
        kept = ~np.isin(owners(offsets), mine)
        arrays = {name: np.array(model_folder.open_array(path, name)[kept]) for name in STORED}
        about = model_folder.read_manifest(path)
        about["users"] -= int(np.count_nonzero(sizes[mine]))
        sizes[mine] = 0
        model_folder.forget_copy(path)
        model_folder.save(path, about, {"offsets": np.concatenate(([0], np.cumsum(sizes))), **arrays})
        removed += gone
    return removed


def finish(folder: str, shards: list[int], manifest: Mapping[str, object]) -> None:
    """Write the manifest, last: a folder without one does not exist."""
    model_folder.save(folder, {**manifest, "shards": sorted(shards), "users_a_shard": USERS_A_SHARD, "length": LENGTH})


class HistoryBook:
    """Histories of several dates: `folders` maps as_of in days since the epoch to the folder of that date."""

    def __init__(self, folders: Mapping[int, str]) -> None:
        self._folders = dict(folders)
        self._shards = {day: set(model_folder.read_manifest(folder)["shards"]) for day, folder in self._folders.items()}
        self._open: dict[tuple[int, int], tuple[Array, Array]] = {}

    def block(self, user_idx: Array, as_of_day: Array, length: int) -> Array:
        """The newest items of each row's user as of the row's day: item_idx, int32 (B, length), newest first.

        -1 where there are fewer; users without events, and negative `user_idx`, have none.
        """
        out = np.full((len(user_idx), length), -1, np.int32)
        shard_B = user_idx.astype(np.int64) // USERS_A_SHARD
        for day in np.unique(as_of_day):
            for shard in np.unique(shard_B[as_of_day == day]):
                if int(shard) not in self._shards[int(day)]:
                    continue
                rows = np.flatnonzero((as_of_day == day) & (shard_B == shard))
                offsets, items = self._arrays(int(day), int(shard))
                user = user_idx[rows] - int(shard) * USERS_A_SHARD
                at = offsets[user + 1][:, None] - 1 - np.arange(length)
                valid = at >= offsets[user][:, None]
                if len(items):
                    out[rows] = np.where(valid, items[np.where(valid, at, 0)], -1)
        return out

    def _arrays(self, day: int, shard: int) -> tuple[Array, Array]:
        if (day, shard) not in self._open:
            folder = f"{self._folders[day]}/shard-{shard}"
            self._open[day, shard] = (
                model_folder.open_array(folder, "offsets"),
                model_folder.open_array(folder, "item_idx"),
            )
        return self._open[day, shard]
