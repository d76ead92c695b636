"""The lists with a positive of a sample of users, for a model that learns in memory. Needs no torch."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from recspark.arrays import Array
from recspark.training.feed.files import arrow_groups, local_path, row_groups

BUCKETS = 4096  # of users


def read_lists(
    files: Sequence[str], columns: Sequence[str], keys: Sequence[str], label: str, max_rows: int, seed: int
) -> dict[str, Array]:
    """Columns of all rows of the lists that have a positive, of a seeded sample of users, at most `max_rows` rows.

    A list: rows with equal `keys`, of which the last one is the user. Lists without a positive have no order to learn;
    they are not read, so they take no room from those that have. Users fall into hash buckets, and whole buckets are
    taken while they fit. Three passes, the first two over the keys and the label alone.
    Memory: 8 bytes for each list with a positive, and the result.
    """
    paths = [local_path(file) for file in files]
    groups = row_groups(paths, [*columns, *keys, label])

    def read(names: Sequence[str]) -> Iterator[dict[str, Array]]:
        return chain.from_iterable(arrow_groups(paths, groups, list(dict.fromkeys(names))))

    found = [_list_hash(part, keys)[part[label] > 0] for part in read([*keys, label])]
    positive = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))
    counts = np.zeros(BUCKETS, np.int64)
    for part in read(keys):
        useful = np.isin(_list_hash(part, keys), positive)
        counts += np.bincount(_bucket(part[keys[-1]][useful], seed), minlength=BUCKETS)
    taken = np.cumsum(counts) <= max_rows
    parts: dict[str, list[Array]] = {name: [] for name in columns}
    for part in read([*columns, *keys]):
        mask = np.isin(_list_hash(part, keys), positive) & taken[_bucket(part[keys[-1]], seed)]
        for name in columns:
            parts[name].append(part[name][mask])
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def _list_hash(part: dict[str, Array], keys: Sequence[str]) -> Array:
    """One number for each list, uint64 (n,); two of n lists share one with a chance of n^2 / 2^65."""
    mixed = np.zeros(len(part[keys[0]]), np.uint64)
    for name in keys:
        mixed = _mix(mixed * np.uint64(31) + part[name].astype(np.uint64) + np.uint64(1))
    return mixed


def _bucket(users: Array, seed: int) -> Array:
    """Seeded hash of the user into BUCKETS."""
    return (_mix(users.astype(np.uint64) + np.uint64(2 * (seed % 2**32) + 1)) % np.uint64(BUCKETS)).astype(np.int64)


def _mix(values: Array) -> Array:
    """Two rounds of multiply and shift, as in splitmix64."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return mixed
