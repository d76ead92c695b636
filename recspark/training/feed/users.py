"""A sample of users with all their training rows, for a model that learns in memory. Needs no torch."""

from collections.abc import Sequence
from itertools import chain

import numpy as np

from recspark.arrays import Array
from recspark.training.feed.files import arrow_groups, local_path, row_groups

BUCKETS = 4096  # of users


def read_users(files: Sequence[str], columns: Sequence[str], user: str, max_rows: int, seed: int) -> dict[str, Array]:
    """Columns of a seeded sample of users, each with all rows, at most `max_rows` rows in all.

    Two passes, the first over the column `user` alone. Users fall into hash buckets, and whole buckets are taken while
    they fit.
    """
    paths = [local_path(file) for file in files]
    groups = row_groups(paths, [*columns, user])
    counts = np.zeros(BUCKETS, np.int64)
    for part in chain.from_iterable(arrow_groups(paths, groups, [user])):
        counts += np.bincount(_bucket(part[user], seed), minlength=BUCKETS)
    taken = np.cumsum(counts) <= max_rows
    parts: dict[str, list[Array]] = {name: [] for name in columns}
    for part in chain.from_iterable(arrow_groups(paths, groups, list(dict.fromkeys([*columns, user])))):
        mask = taken[_bucket(part[user], seed)]
        for name in columns:
            parts[name].append(part[name][mask])
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def _bucket(users: Array, seed: int) -> Array:
    """Seeded hash of the user into BUCKETS (two rounds of multiply and shift, as in splitmix64)."""
    mixed = (users.astype(np.uint64) + np.uint64(2 * (seed % 2**32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return (mixed % np.uint64(BUCKETS)).astype(np.int64)
