"""Training rows out of parquet files, shuffled and cut into batches. The only file that knows petastorm.

A feed reads exactly the files it is given: those of one pinned version of a table, never a folder.

The order of an epoch follows from the files, the seed and the epoch alone. Files in a seeded order -> their row
groups -> lanes (see lanes.py), each cut into pools of row groups -> the rows of a pool shuffled -> batches dealt from
the lanes' streams of pools. Rank r of w ranks takes rows r, r + w, r + 2w ... of every batch. So the batches are the
same for any number of ranks and for both readers; all ranks take the same number of steps; and step s can be found
without reading what lies before its pools. A rank that is a row short pads with weight 0.

What it costs: a rank decodes the row groups of its lanes; all of them where the number of ranks is no power of two.
What grows: for each of a rank's lanes a pool in use and one being read, each of pool_rows / lanes rows plus one row
group, 4 bytes a value. Rows that fit into one pool are read once by every rank and stay for all epochs.
"""

import importlib.util
import logging
import math
import re
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from typing import Literal
from urllib.parse import unquote

import fsspec
import numpy as np
import pyarrow.parquet as pq

from recspark import windows
from recspark.arrays import Array
from recspark.errors import ConfigError, DataError, SchemaError
from recspark.training.feed.lanes import Piece, RowGroup, num_lanes, pools, shares
from recspark.training.feed.prefetch import ahead

Reader = Literal["petastorm", "arrow", "auto"]
Columns = dict[str, Array]
POOL_ROWS = 1_000_000
PART_ROWS = 1 << 16  # decoded at once
READ_BYTES = 1 << 16  # from a local file at once
FILL_ROWS = 1 << 14  # put together at once: these, and their columns, about fit into a core's cache
SAMPLE_BUCKETS = 4096


@dataclass(frozen=True)
class Rows:
    """n rows: `ints` (n, I) int32 and `floats` (n, F) float32, columns in the order asked for."""

    ints: Array
    floats: Array

    def __len__(self) -> int:
        return len(self.ints)


@dataclass(frozen=True)
class Batch(Rows):
    """One rank's part of one batch. `weights` (n,) float32, 0 = padding; `size`: rows of the batch over all ranks."""

    weights: Array
    size: int


@dataclass(frozen=True)
class Folds:
    """Which rows count: those whose `column` is one of `values`, or, with keep=False, is none of them."""

    column: str
    values: frozenset[int]
    keep: bool = True

    def mask(self, folds: Array) -> Array:
        return np.isin(folds, sorted(self.values), invert=not self.keep)


@dataclass(frozen=True)
class Fading:
    """Weights halve for every `half_life` days that a row's `column`, one of the feed's ints, lies before `newest`."""

    column: str
    newest: int
    half_life: float


class Feed:
    """The batches of one rank. See the module's docstring for their order.

    `files`: parquet files as paths or URIs; `ints`, `floats`: column names; `weight`: the float column with the row's
    weight (all 1 without it); `fading`: of weights; `folds`: a row counts if every one of them counts it. Raises
    DataError when a file is gone or no row is left, SchemaError on a missing column, ConfigError when petastorm is
    asked for and not installed.
    """

    def __init__(
        self,
        files: Sequence[str],
        ints: Sequence[str],
        floats: Sequence[str],
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        weight: str | None = None,
        folds: Sequence[Folds] = (),
        reader: Reader = "auto",
        pool_rows: int = POOL_ROWS,
        fading: Fading | None = None,
    ) -> None:
        self._files = [local_path(file) for file in files]
        self._ints, self._floats = list(ints), list(floats)
        self._batch_size, self._seed = batch_size, seed
        self._world = world_size
        self._weight = self._floats.index(weight) if weight else None
        self._folds, self._pool_rows = tuple(folds), pool_rows
        self._fading = fading
        self.reader = _choose(reader)
        self._groups = _row_groups(self._files, [*self._ints, *self._floats], folds)
        self.num_rows = sum(group.rows for group in self._groups)
        if self.num_rows == 0:
            raise DataError(f"{len(self._files)} training files hold no row" + (f" with {folds}" if folds else ""))
        self.num_steps = math.ceil(self.num_rows / batch_size)
        self._lanes = num_lanes(self._groups, batch_size, pool_rows)
        self._shares = shares(self._lanes, rank, world_size)
        self._kept: Array | None = None
        self._spare: list[Array] = []  # an earlier epoch's memory: new one costs the kernel more than the filling

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch, from step `start` on: those that a reading from step 0 would give."""
        with ExitStack() as stack:
            lanes = [self._lane(epoch, share.lane, start) for share in self._shares]
            for lane in lanes:
                stack.enter_context(closing(lane))  # ends its thread when the epoch is abandoned
            for step in range(start, self.num_steps):
                size = min(self._batch_size, self.num_rows - step * self._batch_size)
                yield self._batch([next(lane) for lane in lanes], size)

    def sample(self, max_rows: int) -> Rows:
        """Up to max_rows rows for statistics, spread over the first pool_rows rows; the same for every rank."""
        pool = next(self._pools(pools(self._order(0), 0, 1, self._pool_rows)[:1]))
        return self._split(pool.take(np.linspace(0, len(pool) - 1, min(max_rows, len(pool))).astype(np.int64), axis=0))

    def _lane(self, epoch: int, lane: int, start: int) -> Generator[tuple[Array, Array], None, None]:
        """What a lane gives to each batch: rows of values, and which of them in which order."""
        plan = pools(self._order(epoch), lane, self._lanes, self._pool_rows)
        part = self._batch_size // self._lanes
        skip = start * part  # rows of the lane that come before
        first = 0
        while first < len(plan) and skip >= (rows := _num_rows(plan[first])):
            skip -= rows
            first += 1
        held: Array | None = None  # rows of the last pool that did not fill a part
        for number, pool in enumerate(self._pools(plan[first:]), start=first):
            stream = (self._seed, epoch, number) if self._lanes == 1 else (self._seed, epoch, number, lane)
            order = np.random.default_rng(stream).permutation(len(pool))[skip:]
            skip = 0
            last = number == len(plan) - 1
            at = 0
            if held is not None:
                at = min(part - len(held), len(order))
                held = np.concatenate((held, pool.take(order[:at], axis=0)))
                if len(held) < part and not last:
                    continue
                yield held, np.arange(len(held))
            while at < len(order) and (last or at + part <= len(order)):
                yield pool, order[at : at + part]
                at += part
            held = pool.take(order[at:], axis=0) if at < len(order) else None

    def _batch(self, parts: Sequence[tuple[Array, Array]], size: int) -> Batch:
        taken = np.empty((math.ceil(size / self._world), len(self._ints) + len(self._floats)), np.int32)
        filled = 0
        for share, (rows, order) in zip(self._shares, parts, strict=True):
            mine = order[share.rows]
            # indices are in range, and without a check numpy gathers straight into `out`
            rows.take(mine, axis=0, out=taken[share.places][: len(mine)], mode="clip")
            filled += len(mine)
        short = filled < len(taken)
        if short:
            taken[-1] = parts[0][0][parts[0][1][0]]
        found = self._split(taken)
        weights = np.ones(len(taken), np.float32) if self._weight is None else found.floats[:, self._weight].copy()
        if self._fading is not None:
            day = found.ints[:, self._ints.index(self._fading.column)]
            weights *= windows.fading(day, self._fading.newest, self._fading.half_life)
        if short:
            weights[-1] = 0.0
        return Batch(found.ints, found.floats, weights, size)

    def _split(self, rows: Array) -> Rows:
        """Rows of values (n, I + F) int32, as pools hold them, as whole and real numbers."""
        return Rows(rows[:, : len(self._ints)], rows[:, len(self._ints) :].view(np.float32))

    def _order(self, epoch: int) -> list[RowGroup]:
        """The row groups of an epoch."""
        if self.num_rows <= self._pool_rows:
            return self._groups
        by_file: list[list[RowGroup]] = [[] for _ in self._files]
        for group in self._groups:
            by_file[group.file].append(group)
        files = np.random.default_rng((self._seed, epoch)).permutation(len(self._files))
        return [group for file in files for group in by_file[file]]

    def _pools(self, plan: list[list[Piece]]) -> Generator[Array, None, None]:
        """Each overwrites the one before the last."""
        if self.num_rows <= self._pool_rows and plan:
            if self._kept is None:
                self._kept = next(self._read(plan, []))
            yield self._kept
            return
        buffers = [self._spare.pop() for _ in range(min(2, len(self._spare)))]
        yield from ahead(self._read(plan, buffers)) if len(plan) > 1 else self._read(plan, buffers)
        self._spare += buffers

    def _read(self, plan: list[list[Piece]], buffers: list[Array]) -> Generator[Array, None, None]:
        """Pools as one matrix each, (n, I + F) int32, floats by their bits: a batch gathers a row from one place.

        `buffers`: two are used in turn, and made here where they are missing or too small.
        """
        names = list(dict.fromkeys([*self._ints, *self._floats, *(fold.column for fold in self._folds)]))
        open_groups = _petastorm_groups if self.reader == "petastorm" else _arrow_groups
        groups = open_groups(self._files, [piece.group for pool in plan for piece in pool], names)
        largest, width = max(map(_num_rows, plan), default=0), len(self._ints) + len(self._floats)
        buffers[:] = [buffer for buffer in buffers if len(buffer) >= largest]
        for number, pool in enumerate(plan):
            if len(buffers) < min(number + 1, 2):
                buffers.append(np.empty((largest, width), np.int32))
            rows, at = buffers[number % 2][: _num_rows(pool)], 0
            for piece in pool:
                self._fill(rows[at : (at := at + piece.stop - piece.start)], piece, next(groups))
            yield rows

    def _fill(self, out: Array, piece: Piece, parts: Iterable[Columns]) -> None:
        """A piece into its rows of a pool. `parts`: the columns of its row group, cut."""
        into, read = self._split(out), 0
        for part in parts:
            mask = _all_of(self._folds, part) if self._folds else np.True_
            columns = part if mask.all() else {name: values[mask] for name, values in part.items()}
            num_rows = len(columns[self._ints[0]])
            low, high = max(piece.start - read, 0), min(piece.stop - read, num_rows)
            at = read + low - piece.start
            for start in range(low, high, FILL_ROWS):
                stop = min(start + FILL_ROWS, high)
                block = slice(at, at := at + stop - start)
                for number, name in enumerate(self._ints):
                    if columns[name].dtype.kind not in "iu":
                        raise SchemaError(
                            f"{self._files[piece.group.file]}: column `{name}` is {columns[name].dtype} or has nulls, "
                            "expected whole numbers"
                        )
                    into.ints[block, number] = columns[name][start:stop]
                for number, name in enumerate(self._floats):
                    into.floats[block, number] = columns[name][start:stop]
            read += num_rows
            if read >= piece.stop and piece.stop < piece.group.rows:
                return
        if read != piece.group.rows:
            raise DataError(
                f"{self._files[piece.group.file]}, row group {piece.group.number}: read {read} rows, expected "
                f"{piece.group.rows}; was it replaced?"
            )


def read_users(files: Sequence[str], columns: Sequence[str], user: str, max_rows: int, seed: int) -> dict[str, Array]:
    """Columns of a seeded sample of whole users, at most max_rows rows: for a model that learns in memory.

    Two passes, the first over `user` alone. Users fall into hash buckets, and whole buckets are taken while they fit.
    """
    paths = [local_path(file) for file in files]
    groups = _row_groups(paths, [*columns, user])
    counts = np.zeros(SAMPLE_BUCKETS, np.int64)
    for part in chain.from_iterable(_arrow_groups(paths, groups, [user])):
        counts += np.bincount(_bucket(part[user], seed), minlength=SAMPLE_BUCKETS)
    taken = np.cumsum(counts) <= max_rows
    parts: dict[str, list[Array]] = {name: [] for name in columns}
    for part in chain.from_iterable(_arrow_groups(paths, groups, list(dict.fromkeys([*columns, user])))):
        mask = taken[_bucket(part[user], seed)]
        for name in columns:
            parts[name].append(part[name][mask])
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


def local_path(uri: str) -> str:
    """`df.inputFiles()` gives escaped URIs; local ones become paths (Databricks mounts dbfs:/ at /dbfs)."""
    found = re.match(r"(file|dbfs):/*(/.*)", uri)
    if not found:
        return uri
    return ("/dbfs" if found[1] == "dbfs" else "") + unquote(found[2])


def _choose(reader: Reader) -> Literal["petastorm", "arrow"]:
    installed = importlib.util.find_spec("petastorm") is not None
    if reader == "petastorm" and not installed:
        raise ConfigError("`training.reader` is petastorm, which is not installed; install it, or set the key to arrow")
    return "petastorm" if installed and reader != "arrow" else "arrow"


def _open(path: str) -> pq.ParquetFile:
    try:
        if "://" not in path:
            return pq.ParquetFile(path, buffer_size=READ_BYTES)
        fs, name = fsspec.core.url_to_fs(path)
        return pq.ParquetFile(fs.open(name))
    except FileNotFoundError:
        raise DataError(f"training file {path} is gone (VACUUM removes old versions); run the job again") from None


def num_rows(files: Sequence[str], folds: Sequence[Folds]) -> int:
    """How many rows a feed of these files and folds would have; 0 is no error here."""
    return sum(group.rows for group in _row_groups([local_path(file) for file in files], (), folds))


def _row_groups(paths: Sequence[str], names: Sequence[str], folds: Sequence[Folds] = ()) -> list[RowGroup]:
    """All row groups with the number of rows that count: from the footers, and the folds' columns if there are any."""
    groups = []
    columns = list(dict.fromkeys(fold.column for fold in folds))
    for number, path in enumerate(paths):
        file = _open(path)
        missing = sorted({*names, *columns} - set(file.schema_arrow.names))
        if missing:
            raise SchemaError(f"{path}: columns {missing} are missing, present are {sorted(file.schema_arrow.names)}")
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if folds:
                table = file.read_row_group(group, columns=columns)
                rows = int(_all_of(folds, {name: table[name].to_numpy() for name in columns}).sum())
            groups.append(RowGroup(number, group, rows))
    return groups


def _all_of(folds: Sequence[Folds], columns: dict[str, Array]) -> Array:
    """bool (n,): the rows that every one of `folds` counts."""
    return np.logical_and.reduce([fold.mask(columns[fold.column]) for fold in folds])


def _arrow_groups(
    paths: Sequence[str], groups: Sequence[RowGroup], names: Sequence[str]
) -> Iterator[Iterator[Columns]]:
    opened: tuple[int, pq.ParquetFile] | None = None
    for group in groups:
        if opened is None or opened[0] != group.file:
            opened = (group.file, _open(paths[group.file]))
        # in parts that stay in the cache; a whole row group would be new memory for the kernel to hand out
        yield (
            {name: batch.column(name).to_numpy(zero_copy_only=False) for name in names}
            for batch in opened[1].iter_batches(PART_ROWS, row_groups=[group.number], columns=names, use_threads=False)
        )


def _petastorm_groups(
    paths: Sequence[str], groups: Sequence[RowGroup], names: Sequence[str]
) -> Iterator[list[Columns]]:
    """petastorm yields the row groups of a list of files in order when nothing is shuffled and one worker reads.

    Its reader opens whole files, so row groups of the first file before the first wanted one are read and dropped.
    """
    logging.getLogger("petastorm").setLevel(logging.ERROR)  # it warns of every table that petastorm did not write
    warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")  # its old pyarrow calls
    warnings.filterwarnings("ignore", category=FutureWarning, module="pyarrow")
    from petastorm import make_batch_reader

    order = list(dict.fromkeys(group.file for group in groups))
    urls = [paths[file] if "://" in paths[file] else f"file://{paths[file]}" for file in order]
    fields = [f"^{re.escape(name)}$" for name in names]
    reader = make_batch_reader(
        urls, schema_fields=fields, reader_pool_type="thread", workers_count=1, results_queue_size=2,
        shuffle_row_groups=False, num_epochs=1,
    )  # fmt: skip
    with reader:
        parts = iter(reader)
        for _ in range(groups[0].number):
            next(parts)
        for _ in groups:
            part = next(parts)
            yield [{name: getattr(part, name) for name in names}]


def _bucket(users: Array, seed: int) -> Array:
    """Seeded hash of the user into SAMPLE_BUCKETS (two rounds of multiply and shift, as in splitmix64)."""
    mixed = (users.astype(np.uint64) + np.uint64(2 * (seed % 2**32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return (mixed % np.uint64(SAMPLE_BUCKETS)).astype(np.int64)


def _num_rows(pool: Sequence[Piece]) -> int:
    return sum(piece.stop - piece.start for piece in pool)
