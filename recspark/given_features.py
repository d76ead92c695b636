"""Features of users and items that the configuration names, as of a date: on disk, looked up by number, and coded.

A folder of a date holds `users/shard-<s>` and `items/shard-<s>` (numbers s * IDS_A_SHARD up to the next), then a manifest
with the shards that exist. A shard is memory-mapped when one of its ids is needed, so memory does not grow with users.
A feature is a `number`, or it has texts (`category`: one, `categories`: a list), of which 64-bit hashes are kept.

Shapes: n rows, N number features, G features with texts, L texts of a row, V values of all rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recspark import model_folder
from recspark.arrays import Array
from recspark.histories import owners, ranges

USERS, ITEMS = "users", "items"  # the two sides
SIDES = (USERS, ITEMS)
IDS_A_SHARD = 1 << 16
MOST_TEXTS = 20  # of a list; the rest are cut
PADDING, MISSING, FIRST_BUCKET, NUM_BUCKETS = 0, 1, 2, 16  # codes: rare and unknown texts share the buckets
FIRST_KNOWN = FIRST_BUCKET + NUM_BUCKETS
MIN_ROWS = 20  # a text in fewer training rows shares a bucket
MOST_KNOWN = 10_000  # texts of a feature with a code of their own, the most frequent ones


@dataclass(frozen=True)
class Names:
    """The features of one side, in the order of their columns."""

    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()  # one text each
    lists: tuple[str, ...] = ()  # up to MOST_TEXTS

    @property
    def texts(self) -> tuple[str, ...]:
        """Those whose values are hashes: categories, then lists."""
        return (*self.categories, *self.lists)


@dataclass(frozen=True)
class Values:
    """The features of some rows. `numbers` (n, N) float32, NaN: unknown. Of each feature with texts, row r owns
    values[g][offsets[g][r]:offsets[g][r + 1]]: `offsets` int64 (n + 1,), `values` int64 (V,)."""

    numbers: Array
    offsets: tuple[Array, ...]
    values: tuple[Array, ...]


def save_shard(folder: str, side: str, shard: int, idx: Array, found: Values) -> None:
    """Write the features of the ids `idx` (n,), distinct numbers of this shard."""
    counts_of = [np.diff(offsets) for offsets in found.offsets]
    places = idx.astype(np.int64) - shard * IDS_A_SHARD
    numbers = np.full((IDS_A_SHARD, found.numbers.shape[1]), np.nan, np.float32)
    numbers[places] = found.numbers
    order = np.argsort(places)
    arrays = {"numbers": numbers}
    for g, (offsets, values) in enumerate(zip(found.offsets, found.values, strict=True)):
        sizes = counts_of[g][order]
        counts = np.zeros(IDS_A_SHARD, np.int64)
        counts[places[order]] = sizes
        arrays[f"offsets_{g}"] = np.concatenate(([0], np.cumsum(counts)))
        arrays[f"values_{g}"] = values[np.repeat(offsets[:-1][order], sizes) + ranges(sizes)].astype(np.int64)
    model_folder.save(f"{folder}/{side}/shard-{shard}", {"shard": shard, "ids": len(idx)}, arrays)


def finish(folder: str, names: Mapping[str, Names], shards: Mapping[str, Sequence[int]]) -> None:
    """Write the manifest, last: a folder without one does not exist. `names`, `shards`: by side."""
    sides = {side: {**vars(names[side]), "shards": sorted(shards[side])} for side in SIDES}
    model_folder.save(folder, {"sides": sides, "ids_a_shard": IDS_A_SHARD})


def names_in(folder: str) -> dict[str, Names]:
    """Side -> its features."""
    sides = model_folder.read_manifest(folder)["sides"]
    return {side: Names(*(tuple(sides[side][kind]) for kind in ("numbers", "categories", "lists"))) for side in SIDES}


class FeatureBook:
    """Features of several dates: `folders` maps as_of in days since the epoch to the folder of that date."""

    def __init__(self, folders: Mapping[int, str]) -> None:
        self._folders = dict(folders)
        manifests = {day: model_folder.read_manifest(folder)["sides"] for day, folder in self._folders.items()}
        self._shards = {(day, side): set(sides[side]["shards"]) for day, sides in manifests.items() for side in SIDES}
        self.names = names_in(next(iter(self._folders.values())))
        self._open: dict[tuple[int, str, int], dict[str, Array]] = {}

    def look_up(self, side: str, idx: Array, as_of_day: Array) -> Values:
        """The features of each row's id as of the row's day; unknown for ids that the folder does not have, and below
        0. A row depends on itself alone."""
        names = self.names[side]
        numbers = np.full((len(idx), len(names.numbers)), np.nan, np.float32)
        counts = np.zeros((len(names.texts), len(idx)), np.int64)
        parts: list[tuple[Array, dict[str, Array], Array]] = []
        shard_n = idx.astype(np.int64) // IDS_A_SHARD
        for day in np.unique(as_of_day):
            for shard in np.unique(shard_n[as_of_day == day]):
                if int(shard) not in self._shards[int(day), side]:
                    continue
                rows = np.flatnonzero((as_of_day == day) & (shard_n == shard))
                arrays, place = self._arrays(int(day), side, int(shard)), idx[rows] - int(shard) * IDS_A_SHARD
                numbers[rows] = arrays["numbers"][place]
                for g in range(len(names.texts)):
                    counts[g, rows] = np.diff(arrays[f"offsets_{g}"])[place]
                parts.append((rows, arrays, place))
        offsets = tuple(np.concatenate(([0], np.cumsum(count))) for count in counts)
        values = tuple(np.zeros(offset[-1], np.int64) for offset in offsets)
        for rows, arrays, place in parts:
            for g in range(len(names.texts)):
                sizes = counts[g, rows]
                within = ranges(sizes)
                source = np.repeat(arrays[f"offsets_{g}"][place], sizes) + within
                values[g][np.repeat(offsets[g][rows], sizes) + within] = arrays[f"values_{g}"][source]
        return Values(numbers, offsets, values)

    def _arrays(self, day: int, side: str, shard: int) -> dict[str, Array]:
        if (day, side, shard) not in self._open:
            folder = f"{self._folders[day]}/{side}/shard-{shard}"
            places = range(len(self.names[side].texts))
            names = ["numbers", *(f"{kind}_{g}" for g in places for kind in ("offsets", "values"))]
            self._open[day, side, shard] = {name: model_folder.open_array(folder, name) for name in names}
        return self._open[day, side, shard]


def known_texts(values: Array) -> Array:
    """The hashes that get a code of their own, ascending int64: in at least MIN_ROWS of the rows' `values`, at most
    MOST_KNOWN."""
    found, counts = np.unique(values, return_counts=True)
    order = np.lexsort((found, -counts))[:MOST_KNOWN]
    return np.sort(found[order][counts[order] >= MIN_ROWS])


def codes(found: Values, known: Sequence[Array], length: int) -> Array:
    """The codes of each row's texts, int32 (n, G, L): PADDING behind them, MISSING alone where there is none.

    `known`: of each feature, as of `known_texts`. Other texts have a bucket by their hash.
    """
    num_rows = len(found.numbers)
    out = np.zeros((num_rows, len(known), length), np.int32)
    for g, (offsets, values) in enumerate(zip(found.offsets, found.values, strict=True)):
        place = np.searchsorted(known[g], values)
        is_known = np.zeros(len(values), bool)
        inside = place < len(known[g])
        is_known[inside] = known[g][place[inside]] == values[inside]
        code = np.where(is_known, FIRST_KNOWN + place, FIRST_BUCKET + values % NUM_BUCKETS)
        row, at = owners(offsets), ranges(np.diff(offsets))
        kept = at < length
        out[row[kept], g, at[kept]] = code[kept]
        out[np.diff(offsets) == 0, g, 0] = MISSING
    return out
