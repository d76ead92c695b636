"""Training rows from Parquet files, shuffled and cut into batches. The only module that uses petastorm.

A feed reads exactly the files it is given: those of one pinned version of a table, never a folder.

The order of an epoch follows from the files, the seed and the epoch alone. Files in a seeded order -> their row
groups -> lanes (see lanes.py), each cut into pools of row groups -> the rows of a pool shuffled -> batches dealt from
the lanes' streams of pools. Rank r of w ranks takes rows r, r + w, r + 2w ... of every batch. So the batches are the
same for any number of ranks and for both readers; all ranks take the same number of steps; and step s can be found
without reading the rows before its pools. A rank that is a row short is padded with a row of weight 0.

Cost: a rank decodes the row groups of its lanes; all of them if the number of ranks is no power of two.
Memory: for each of a rank's lanes a pool in use and one being read, each of pool_rows / lanes rows plus one row group,
4 bytes a value. Rows that fit into one pool are read once by every rank and stay for all epochs.
"""

import importlib.util
import logging
import math
import re
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from recspark import windows
from recspark.arrays import Array
from recspark.errors import ConfigError, DataError, SchemaError
from recspark.training.feed.files import Columns, RowFilter, arrow_groups, local_path, row_groups, rows_that_count
from recspark.training.feed.lanes import Piece, RowGroup, num_lanes, pools, shares
from recspark.training.feed.prefetch import prefetch

Reader: TypeAlias = Literal["petastorm", "arrow", "auto"]
POOL_ROWS = 1_000_000
FILL_ROWS = 1 << 14  # copied at once: these, and their columns, about fit into a core's cache


@dataclass(frozen=True)
class Rows:
    """n rows: `ints` (n, I) int32 and `floats` (n, F) float32, columns in the order of the feed's."""

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
class ExponentialDecay:
    """Weights halve for every `half_life` days that a row's `column`, one of the feed's ints, lies before `newest`."""

    column: str
    newest: int
    half_life: float


class Feed:
    """The batches of one rank. See the module's docstring for their order.

    `files`: parquet files as paths or URIs; `ints`, `floats`: column names; `weight`: the float column with the row's
    weight (all 1 without it); `decay`: of weights with age; `filters`: a row counts if every one of them counts it.

    Raises: DataError when a file is gone or no row is left, SchemaError on a missing column, ConfigError when the
    reader is petastorm and it is not installed, or cannot read the files.
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
        filters: Sequence[RowFilter] = (),
        reader: Reader = "auto",
        pool_rows: int = POOL_ROWS,
        decay: ExponentialDecay | None = None,
    ) -> None:
        self._files = [local_path(file) for file in files]
        self._ints, self._floats = list(ints), list(floats)
        self._batch_size, self._seed = batch_size, seed
        self._world = world_size
        self._weight = self._floats.index(weight) if weight else None
        self._filters, self._pool_rows = tuple(filters), pool_rows
        self._decay = decay
        self.reader = _choose(reader, self._files)
        self._groups = row_groups(self._files, [*self._ints, *self._floats], filters)
        self.num_rows = sum(group.rows for group in self._groups)
        if self.num_rows == 0:
            raise DataError(f"{len(self._files)} training files hold no row" + (f" with {filters}" if filters else ""))
        self.num_steps = math.ceil(self.num_rows / batch_size)
        self._lanes = num_lanes(self._groups, batch_size, pool_rows)
        self._shares = shares(self._lanes, rank, world_size)
        self._kept: Array | None = None
        self._spare: list[Array] = []  # an earlier epoch's memory: new memory takes longer to allocate than to fill

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch from step `start` on, the same as those of a reading from step 0."""
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
        """A lane's part of each batch: rows of values, and which of them in which order."""
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
        if self._decay is not None:
            day = found.ints[:, self._ints.index(self._decay.column)]
            weights *= windows.exponential_decay(self._decay.newest - day, self._decay.half_life)
        if short:
            weights[-1] = 0.0
        return Batch(found.ints, found.floats, weights, size)

    def _split(self, rows: Array) -> Rows:
        """Values (n, I + F) int32, as pools hold them, as int and float columns."""
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
        yield from prefetch(self._read(plan, buffers)) if len(plan) > 1 else self._read(plan, buffers)
        self._spare += buffers

    def _read(self, plan: list[list[Piece]], buffers: list[Array]) -> Generator[Array, None, None]:
        """Pools as one matrix each, (n, I + F) int32, floats by their bits: a batch gathers a row from one place.

        `buffers`: two are used in turn, and allocated here if they are missing or too small.
        """
        names = list(dict.fromkeys([*self._ints, *self._floats, *(one.column for one in self._filters)]))
        open_groups = _petastorm_groups if self.reader == "petastorm" else arrow_groups
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
            mask = rows_that_count(self._filters, part) if self._filters else np.True_
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


def _choose(reader: Reader, files: Sequence[str]) -> Literal["petastorm", "arrow"]:
    """petastorm opens files of an object store by a call that pyarrow no longer has."""
    installed = importlib.util.find_spec("petastorm") is not None
    remote = next((file for file in files if "://" in file), None)
    if reader == "petastorm" and remote is not None:
        raise ConfigError(f"`training.reader` is petastorm, which cannot read {remote}; set the key to arrow or auto")
    if reader == "petastorm" and not installed:
        raise ConfigError("`training.reader` is petastorm, which is not installed; install it, or set the key to arrow")
    return "petastorm" if installed and remote is None and reader != "arrow" else "arrow"


def _petastorm_groups(
    paths: Sequence[str], groups: Sequence[RowGroup], names: Sequence[str]
) -> Iterator[list[Columns]]:
    """petastorm yields the row groups of a list of files in order if nothing is shuffled and one worker reads.

    Its reader opens whole files, so row groups of the first file before the first wanted one are read and dropped.
    """
    logging.getLogger("petastorm").setLevel(logging.ERROR)  # it warns of every table that petastorm did not write
    warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")  # its old pyarrow calls
    warnings.filterwarnings("ignore", category=FutureWarning, module="pyarrow")
    from petastorm import make_batch_reader

    order = list(dict.fromkeys(group.file for group in groups))
    urls = [f"file://{paths[file]}" for file in order]
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


def _num_rows(pool: Sequence[Piece]) -> int:
    return sum(piece.stop - piece.start for piece in pool)
