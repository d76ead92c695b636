"""Features of users and items that the configuration names, as of a date: on disk, looked up by number, and coded.

A folder of a date holds `users/shard-<s>` and `items/shard-<s>` (numbers s * IDS_A_SHARD up to the next) and a manifest
with the shards that exist. A shard is memory-mapped when one of its ids is needed, so memory does not grow with users.
A feature is a `number`, or it has texts (`category`: one, `categories`: a list), of which 64-bit hashes are kept.

Shapes: n rows, N number features, G features with texts, L texts of a row, V values of all rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
MIN_IDS = 5  # a text of fewer users or items shares a bucket: it would stand for them
MOST_KNOWN = 10_000  # texts of a feature with a code of their own, the most frequent ones
TOP = 16  # texts of a list that trees see


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


def erase_users(folder: str, users: Array) -> int:
    """Remove the features of `users` (n,), numbers, from a folder; returns how many had any. Nobody may be reading."""
    removed = 0
    num_texts = len(names_in(folder)[USERS].texts)
    for shard in model_folder.read_manifest(folder)["sides"][USERS]["shards"]:
        path = f"{folder}/{USERS}/shard-{shard}"
        mine = users[users // IDS_A_SHARD == shard] - shard * IDS_A_SHARD
        numbers = np.array(model_folder.open_array(path, "numbers"))
        had = np.isfinite(numbers[mine]).any(axis=1)
        numbers[mine] = np.nan
        arrays = {"numbers": numbers}
        for g in range(num_texts):
            offsets, values = (model_folder.open_array(path, f"{kind}_{g}") for kind in ("offsets", "values"))
            sizes = np.diff(offsets)
            had |= sizes[mine] > 0
            arrays[f"values_{g}"] = np.array(values[~np.isin(owners(offsets), mine)])
            sizes[mine] = 0
            arrays[f"offsets_{g}"] = np.concatenate(([0], np.cumsum(sizes)))
        if had.any():
            about = model_folder.read_manifest(path)
            model_folder.forget_copy(path)
            model_folder.save(path, {**about, "ids": about["ids"] - int(had.sum())}, arrays)
            removed += int(had.sum())
    return removed


def finish(folder: str, names: Mapping[str, Names], shards: Mapping[str, Sequence[int]]) -> None:
    """Write the manifest, last: a folder without one does not exist. `names`, `shards`: by side."""
    sides = {side: {**vars(names[side]), "shards": sorted(shards[side])} for side in SIDES}
    model_folder.save(folder, {"sides": sides, "ids_a_shard": IDS_A_SHARD})


def names_in(folder: str) -> dict[str, Names]:
    """Side -> its features."""
    sides = model_folder.read_manifest(folder)["sides"]
    return {side: _names(sides[side]) for side in SIDES}


def _names(stored: Mapping[str, Any]) -> Names:
    return Names(*(tuple(stored[kind]) for kind in ("numbers", "categories", "lists")))


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


@dataclass(frozen=True)
class Coding:
    """How a model reads given features, learnt from its training rows.

    `names`: by side. `known`: of each feature with texts, those of users first, the hashes that have a code of their
    own, ascending int64. `top`: of each feature that is a list the codes of its most frequent texts, empty for others.
    """

    names: Mapping[str, Names]
    known: tuple[Array, ...]
    top: tuple[Array, ...]

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the columns of `numbers_and_codes`."""
        return tuple(f"{side[:-1]}_{name}" for side in SIDES for name in self.names[side].numbers)

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the features with texts, in the order of `known`."""
        return tuple(f"{side[:-1]}_{name}" for side in SIDES for name in self.names[side].texts)

    @property
    def length(self) -> int:
        """Texts of a row that are read."""
        return MOST_TEXTS if any(self.names[side].lists for side in SIDES) else 1


def fit_coding(book: FeatureBook, user_idx: Array, item_idx: Array, as_of_day: Array) -> Coding:
    """The coding for training rows (n,): a text has a code of its own if MIN_IDS users or items of them have it."""
    known: list[Array] = []
    top: list[Array] = []
    for side, idx in ((USERS, user_idx), (ITEMS, item_idx)):
        first = np.unique(np.stack([idx, as_of_day]), axis=1)
        found = book.look_up(side, first[0], first[1])
        for name, offsets, values in zip(book.names[side].texts, found.offsets, found.values, strict=True):
            pairs = np.unique(np.stack([values, first[0][owners(offsets)]]), axis=1)  # an id counts once
            texts, counts = np.unique(pairs[0], return_counts=True)
            order = np.lexsort((texts, -counts))[:MOST_KNOWN]
            frequent = texts[order][counts[order] >= MIN_IDS]
            known.append(np.sort(frequent).astype(np.int64))
            is_list = name in book.names[side].lists
            top.append(FIRST_KNOWN + np.searchsorted(known[-1], frequent[: TOP if is_list else 0]))
    return Coding(book.names, tuple(known), tuple(top))


def numbers_and_codes(
    book: FeatureBook, coding: Coding, user_idx: Array, item_idx: Array, as_of_day: Array
) -> tuple[Array, Array]:
    """Of rows (n,): number features float32 (n, N), NaN: unknown; and the codes of their texts, int32 (n, G, L):
    PADDING behind them, MISSING alone where there is none. Unknown texts have a bucket by their hash."""
    sides = [book.look_up(side, idx, as_of_day) for side, idx in ((USERS, user_idx), (ITEMS, item_idx))]
    codes = np.zeros((len(user_idx), len(coding.known), coding.length), np.int32)
    texts = [pair for found in sides for pair in zip(found.offsets, found.values, strict=True)]
    for g, (offsets, values) in enumerate(texts):
        known = coding.known[g]
        place = np.minimum(np.searchsorted(known, values), max(len(known) - 1, 0))
        is_known = known[place] == values if len(known) else np.zeros(len(values), bool)
        code = np.where(is_known, FIRST_KNOWN + place, FIRST_BUCKET + values % NUM_BUCKETS)
        sizes = np.diff(offsets)
        row, at = owners(offsets), ranges(sizes)
        kept = at < coding.length
        codes[row[kept], g, at[kept]] = code[kept]
        codes[sizes == 0, g, 0] = MISSING
    return np.concatenate([found.numbers for found in sides], axis=1), codes


def tree_names(coding: Coding) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the columns of `tree_columns`, and those of them that are categories."""
    names, categories = [f"given_{name}" for name in coding.numbers], []
    for name, top in zip(coding.texts, coding.top, strict=True):
        if _is_list(coding, name):
            names += [f"given_{name}_{n}" for n in range(len(top))]
        else:
            names.append(f"given_{name}")
            categories.append(names[-1])
    return tuple(names), tuple(categories)


def tree_columns(coding: Coding, numbers: Array, codes: Array) -> Array:
    """What trees read, float32 (n, K): numbers, the code of a category (NaN: missing), and for a list, whether it has
    each of its most frequent texts. `numbers`, `codes`: of `numbers_and_codes`."""
    columns = [*numbers.T]
    for g, (name, top) in enumerate(zip(coding.texts, coding.top, strict=True)):
        if _is_list(coding, name):
            columns += [(codes[:, g] == code).any(axis=1) for code in top]
        else:
            columns.append(np.where(codes[:, g, 0] == MISSING, np.nan, codes[:, g, 0]))
    return np.asarray(np.stack(columns, axis=1) if columns else np.zeros((len(numbers), 0)), dtype=np.float32)


def _is_list(coding: Coding, name: str) -> bool:
    side, _, feature = name.partition("_")
    return feature in coding.names[f"{side}s"].lists


def to_arrays(coding: Coding) -> tuple[dict[str, Any], dict[str, Array]]:
    """(for a manifest's JSON, arrays by name)."""
    arrays = {f"given_{kind}_{g}": a for kind in ("known", "top") for g, a in enumerate(getattr(coding, kind))}
    return {side: {**vars(coding.names[side])} for side in SIDES}, arrays


def from_arrays(manifest: Mapping[str, Any], read: Callable[[str], Array]) -> Coding:
    """The inverse of `to_arrays`; `read` opens an array by its name."""
    names = {side: _names(manifest[side]) for side in SIDES}
    places = range(sum(len(names[side].texts) for side in SIDES))
    known, top = (tuple(np.asarray(read(f"given_{kind}_{g}")) for g in places) for kind in ("known", "top"))
    return Coding(names, known, top)
