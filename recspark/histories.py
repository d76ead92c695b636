"""Users' events as flat arrays with offsets: in memory, from Arrow, and on disk in shards of users.

A history folder holds `shard-<s>` folders (users s * USERS_A_SHARD up to the next) and a manifest with the shards that
exist. Nothing here is of size users x anything in memory: a shard is mapped when one of its users is asked for.
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
LENGTH = 50  # events kept of each user


@dataclass(frozen=True)
class Histories:
    """Events of a block of users, sorted by user and then time; user u owns rows offsets[u]:offsets[u + 1].

    `offsets` (U + 1,) int64; `item_idx`, `scenario_idx` (E,) int; `time` (E,) float64, days since the epoch;
    `weight` (E,) float, negative = undone; `value`, `price` (E,) float, nan when unknown.
    """

    offsets: Array
    item_idx: Array
    scenario_idx: Array
    time: Array
    weight: Array
    value: Array
    price: Array


def take(histories: Histories, users: Array, drop: int = 0) -> Histories:
    """Histories of `users` (Q,), in that order, without the newest `drop` events of each (none is left without any).

    A list two events ahead of the history is practised on one that also is: with `drop` = 1 the newest known event
    stands in for the one between history and outcome.
    """
    size = np.diff(histories.offsets)[users]
    kept = np.where(size > drop, size - drop, size)
    offsets = np.concatenate(([0], np.cumsum(kept)))
    rows = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - histories.offsets[users], kept)
    h = histories
    arrays = (h.item_idx, h.scenario_idx, h.time, h.weight, h.value, h.price)
    return Histories(offsets, *(array[rows] for array in arrays))


def keep(histories: Histories, kept: Array) -> Histories:
    """The same users with some of their events only; `kept` bool (E,)."""
    columns = {name: array[kept] for name, array in vars(histories).items() if name != "offsets"}
    return Histories(offsets=np.concatenate(([0], np.cumsum(kept)))[histories.offsets], **columns)


def from_arrow(batch: pa.RecordBatch) -> Histories:
    """The list columns of HISTORIES rows as flat arrays; their layout in Arrow is the same, so nothing is copied."""
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
    """Write the last LENGTH events of each user of a shard.

    `user_idx` (U,) distinct; events of user_idx[u] are rows offsets[u]:offsets[u + 1], oldest first; `time` in days.
    """
    order = np.argsort(user_idx)
    lengths = np.minimum(np.diff(offsets), LENGTH)[order]
    ends = offsets[1:][order]
    kept = np.repeat(ends - lengths, lengths) + _ranges(lengths)
    counts = np.zeros(USERS_A_SHARD, np.int64)
    counts[user_idx[order] - shard * USERS_A_SHARD] = lengths
    arrays = {
        "offsets": np.concatenate(([0], np.cumsum(counts))),
        "item_idx": item_idx[kept].astype(np.int32),
        "scenario_idx": scenario_idx[kept].astype(np.int32),
        "time": time[kept].astype(np.float64),
    }
    model_folder.save(f"{folder}/shard-{shard}", {"shard": shard, "users": len(user_idx)}, arrays)


def finish(folder: str, shards: list[int], manifest: Mapping[str, object]) -> None:
    """Declare the folder whole."""
    model_folder.save(folder, {**manifest, "shards": sorted(shards), "users_a_shard": USERS_A_SHARD, "length": LENGTH})


class HistoryBook:
    """Histories of several dates: `folders` maps as_of in days since the epoch to the folder of that date."""

    def __init__(self, folders: Mapping[int, str]) -> None:
        self._folders = dict(folders)
        self._shards = {day: set(model_folder.read_manifest(folder)["shards"]) for day, folder in self._folders.items()}
        self._open: dict[tuple[int, int], tuple[Array, Array]] = {}

    def block(self, user_idx: Array, as_of_day: Array, length: int) -> Array:
        """(B, length) int32: the item_idx of each row's user as of its day, newest first, -1 where there are fewer.

        Users nobody has seen (also negative ones) have none.
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


def _ranges(lengths: Array) -> Array:
    """0..n-1 for each n, one after the other."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
