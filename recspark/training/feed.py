"""Training rows out of parquet files, shuffled and cut into batches. The only file that knows petastorm.

A feed reads exactly the files it is given: those of one pinned version of a table, never a folder.

The order of an epoch follows from the files, the seed and the epoch alone. Files in a seeded order -> their row
groups, collected into pools of at least `pool_rows` rows -> the rows of a pool shuffled -> batches cut from the stream
of pools. Rank r of w ranks takes rows r, r + w, r + 2w ... of every batch. So the batches are the same for any number
of ranks and for both readers; all ranks take the same number of steps; and step s can be found without reading what
lies before its pool. A rank that is a row short pads with weight 0.

What it costs: every rank decodes every row group, because any row may fall to any rank.
What grows: one pool in use and one being read, each of pool_rows rows plus one row group, 4 bytes a value. Rows that
fit into one pool are read once and stay for all epochs.
"""

import importlib.util
import logging
import math
import queue
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recspark import windows
from recspark.errors import ConfigError, DataError, SchemaError

Reader = Literal["petastorm", "arrow", "auto"]
POOL_ROWS = 1_000_000
SAMPLE_BUCKETS = 4096


@dataclass(frozen=True)
class Rows:
    """n rows: `ints` (n, I) int32 and `floats` (n, F) float32, columns in the order asked for."""

    ints: np.ndarray
    floats: np.ndarray

    def __len__(self) -> int:
        return len(self.ints)

    def take(self, where: np.ndarray) -> "Rows":
        return Rows(self.ints.take(where, axis=0), self.floats.take(where, axis=0))


@dataclass(frozen=True)
class Batch(Rows):
    """One rank's part of one batch. `weights` (n,) float32, 0 = padding; `size`: rows of the batch over all ranks."""

    weights: np.ndarray
    size: int


@dataclass(frozen=True)
class Folds:
    """Which rows count: those whose `column` is one of `values`, or, with keep=False, is none of them."""

    column: str
    values: frozenset[int]
    keep: bool = True

    def mask(self, folds: np.ndarray) -> np.ndarray:
        return np.isin(folds, sorted(self.values), invert=not self.keep)


@dataclass(frozen=True)
class Fading:
    """Weights halve for every `half_life` days that a row's `column`, one of the feed's ints, lies before `newest`."""

    column: str
    newest: int
    half_life: float


@dataclass(frozen=True)
class _RowGroup:
    file: int
    number: int
    rows: int  # after the fold filter


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
        self._rank, self._world = rank, world_size
        self._weight = self._floats.index(weight) if weight else None
        self._folds, self._pool_rows = tuple(folds), pool_rows
        self._fading = fading
        self.reader = _choose(reader)
        self._groups = _row_groups(self._files, [*self._ints, *self._floats], folds)
        self.num_rows = sum(group.rows for group in self._groups)
        if self.num_rows == 0:
            raise DataError(f"{len(self._files)} training files hold no row" + (f" with {folds}" if folds else ""))
        self.num_steps = math.ceil(self.num_rows / batch_size)
        self._kept: Rows | None = None

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch, from step `start` on: those that a reading from step 0 would give."""
        pools = self._plan(epoch)
        skip = start * self._batch_size  # rows of the stream that come before
        first = 0
        while first < len(pools) and skip >= (rows := sum(group.rows for group in pools[first])):
            skip -= rows
            first += 1
        held: Rows | None = None  # rows of the last pool that did not fill a batch
        for number, pool in enumerate(self._pools(pools[first:]), start=first):
            order = np.random.default_rng((self._seed, epoch, number)).permutation(len(pool))[skip:]
            skip = 0
            last = number == len(pools) - 1
            at = 0
            if held is not None:
                at = min(self._batch_size - len(held), len(order))
                held = _concat([held, pool.take(order[:at])])
                if len(held) < self._batch_size and not last:
                    continue
                yield self._mine(held, np.arange(len(held)))
            while at < len(order) and (last or at + self._batch_size <= len(order)):
                yield self._mine(pool, order[at : at + self._batch_size])
                at += self._batch_size
            held = pool.take(order[at:]) if at < len(order) else None

    def sample(self, max_rows: int) -> Rows:
        """Up to max_rows rows for statistics, spread over the first pool; the same for every rank."""
        pool = next(self._pools(self._plan(0)[:1]))
        return pool.take(np.linspace(0, len(pool) - 1, min(max_rows, len(pool))).astype(np.int64))

    def _mine(self, rows: Rows, order: np.ndarray) -> Batch:
        part = order[self._rank :: self._world]
        short = len(part) < math.ceil(len(order) / self._world)
        taken = rows.take(np.append(part, order[:1]) if short else part)
        weights = np.ones(len(taken), np.float32) if self._weight is None else taken.floats[:, self._weight].copy()
        if self._fading is not None:
            day = taken.ints[:, self._ints.index(self._fading.column)]
            weights *= windows.fading(day, self._fading.newest, self._fading.half_life)
        if short:
            weights[-1] = 0.0
        return Batch(taken.ints, taken.floats, weights, len(order))

    def _plan(self, epoch: int) -> list[list[_RowGroup]]:
        """The pools of an epoch."""
        if self.num_rows <= self._pool_rows:
            return [self._groups]
        by_file: list[list[_RowGroup]] = [[] for _ in self._files]
        for group in self._groups:
            by_file[group.file].append(group)
        pools: list[list[_RowGroup]] = []
        rows = self._pool_rows
        for file in np.random.default_rng((self._seed, epoch)).permutation(len(self._files)):
            for group in by_file[file]:
                if rows >= self._pool_rows:
                    pools.append([])
                    rows = 0
                pools[-1].append(group)
                rows += group.rows
        return pools

    def _pools(self, pools: list[list[_RowGroup]]) -> Iterator[Rows]:
        if self.num_rows <= self._pool_rows and pools:
            if self._kept is None:
                self._kept = next(self._read(pools))
            yield self._kept
        elif len(pools) == 1:
            yield from self._read(pools)
        else:
            yield from _ahead(self._read(pools))

    def _read(self, pools: list[list[_RowGroup]]) -> Iterator[Rows]:
        names = list(dict.fromkeys([*self._ints, *self._floats, *(fold.column for fold in self._folds)]))
        open_groups = _petastorm_groups if self.reader == "petastorm" else _arrow_groups
        groups = open_groups(self._files, [group for pool in pools for group in pool], names)
        for pool in pools:
            yield _concat([self._rows(next(groups), group) for group in pool])

    def _rows(self, columns: dict[str, np.ndarray], group: _RowGroup) -> Rows:
        """One row group as matrices: a batch then gathers each row from one place."""
        file = self._files[group.file]
        mask = _all_of(self._folds, columns) if self._folds else np.True_
        num_rows = len(columns[self._ints[0]]) if mask.ndim == 0 else int(mask.sum())
        if num_rows != group.rows:
            raise DataError(
                f"{file}, row group {group.number}: read {num_rows} rows, expected {group.rows}; was it replaced?"
            )
        where = slice(None) if mask.ndim == 0 or mask.all() else mask
        ints = np.empty((num_rows, len(self._ints)), np.int32)
        floats = np.empty((num_rows, len(self._floats)), np.float32)
        for number, name in enumerate(self._ints):
            if columns[name].dtype.kind not in "iu":
                raise SchemaError(
                    f"{file}: column `{name}` is {columns[name].dtype} or has nulls, expected whole numbers"
                )
            ints[:, number] = columns[name][where]
        for number, name in enumerate(self._floats):
            floats[:, number] = columns[name][where]
        return Rows(ints, floats)


def read_users(
    files: Sequence[str], columns: Sequence[str], user: str, max_rows: int, seed: int
) -> dict[str, np.ndarray]:
    """Columns of a seeded sample of whole users, at most max_rows rows: for a model that learns in memory.

    Two passes, the first over `user` alone. Users fall into hash buckets, and whole buckets are taken while they fit.
    """
    paths = [local_path(file) for file in files]
    groups = _row_groups(paths, [*columns, user])
    counts = np.zeros(SAMPLE_BUCKETS, np.int64)
    for part in _arrow_groups(paths, groups, [user]):
        counts += np.bincount(_bucket(part[user], seed), minlength=SAMPLE_BUCKETS)
    taken = np.cumsum(counts) <= max_rows
    parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
    for part in _arrow_groups(paths, groups, list(dict.fromkeys([*columns, user]))):
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
            return pq.ParquetFile(path, memory_map=True)
        fs, name = fsspec.core.url_to_fs(path)
        return pq.ParquetFile(fs.open(name))
    except FileNotFoundError:
        raise DataError(f"training file {path} is gone (VACUUM removes old versions); run the job again") from None


def num_rows(files: Sequence[str], folds: Sequence[Folds]) -> int:
    """How many rows a feed of these files and folds would have; 0 is no error here."""
    return sum(group.rows for group in _row_groups([local_path(file) for file in files], (), folds))


def _row_groups(paths: Sequence[str], names: Sequence[str], folds: Sequence[Folds] = ()) -> list[_RowGroup]:
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
            groups.append(_RowGroup(number, group, rows))
    return groups


def _all_of(folds: Sequence[Folds], columns: dict[str, np.ndarray]) -> np.ndarray:
    """bool (n,): the rows that every one of `folds` counts."""
    return np.logical_and.reduce([fold.mask(columns[fold.column]) for fold in folds])


def _arrow_groups(
    paths: Sequence[str], groups: Sequence[_RowGroup], names: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
    opened: tuple[int, pq.ParquetFile] | None = None
    for group in groups:
        if opened is None or opened[0] != group.file:
            opened = (group.file, _open(paths[group.file]))
        table: pa.Table = opened[1].read_row_group(group.number, columns=list(names), use_threads=False)
        yield {name: table.column(name).to_numpy() for name in names}


def _petastorm_groups(
    paths: Sequence[str], groups: Sequence[_RowGroup], names: Sequence[str]
) -> Iterator[dict[str, np.ndarray]]:
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
            yield {name: getattr(part, name) for name in names}


def _bucket(users: np.ndarray, seed: int) -> np.ndarray:
    """Seeded hash of the user into SAMPLE_BUCKETS (two rounds of multiply and shift, as in splitmix64)."""
    mixed = (users.astype(np.uint64) + np.uint64(2 * (seed % 2**32) + 1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(32)
    return (mixed % np.uint64(SAMPLE_BUCKETS)).astype(np.int64)


def _concat(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return Rows(np.concatenate([p.ints for p in parts]), np.concatenate([p.floats for p in parts]))


def _ahead(items: Iterator[Rows]) -> Iterator[Rows]:
    """The same items, the next one being made in a thread while one is in use; never more than these two."""
    ready: queue.Queue = queue.Queue()
    free = threading.Semaphore(1)
    stopped = threading.Event()

    def produce() -> None:
        try:
            while free.acquire() and not stopped.is_set():
                item = next(items, None)
                ready.put(item)
                if item is None:
                    return
        except BaseException as error:  # the consumer raises it
            ready.put(error)

    thread = threading.Thread(target=produce, name="feed", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            free.release()
            yield item
    finally:
        stopped.set()
        free.release()
        thread.join()
        items.close()  # type: ignore[attr-defined]  # a generator: lets petastorm's reader stop its worker
