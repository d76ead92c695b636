"""Shuffled rows a second that two ranks can read for training: `python -m benchmarks feed`.

5 M rows of 6 int32 and 14 float32 columns in a Delta table that Spark wrote as the stage training_examples does: in
five files of one row group each. Two processes of one thread each read all rows together: by the product's feed with
either reader; by petastorm's loaders with their shuffling buffers, over make_batch_reader with its row groups sharded;
and, without any shuffling, by the bare readers. Each of the others is tried with several settings; the fastest counts.
In epoch 1 the files are opened and are not in the page cache; in later epochs they are there. 5 M rows are five pools,
so the feed keeps nothing in memory. A rate is the number of all rows divided by the time of the slower rank. DataLoader
is timed on two files.
"""

import logging
import multiprocessing as mp
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from recspark.session import get_session
from recspark.stages.training_examples import ROWS_A_FILE
from recspark.tables.training_examples import in_hash_order
from recspark.training.feed.feed import POOL_ROWS, Feed
from recspark.training.feed.files import local_path

ROWS, FILES, RANKS, BATCH, LATER = 5_000_000, 5_000_000 // ROWS_A_FILE, 2, 8192, 2
INTS = {"as_of_day": 10, "scenario_idx": 30, "user_idx": 1_000_000, "item_idx": 50_000, "fold": 10, "row": ROWS}
FLOATS = tuple(f"f{number}" for number in range(14))
NAMES = (*INTS, *FLOATS)
PART = 1 << 16  # rows decoded at once by a bare reader, where it is not a row group

Epoch = Callable[[int], int]  # reads the epoch of this number, returns the number of this rank's rows


def write(folder: str, rows: int) -> list[str]:
    """Write the table; returns its files."""
    spark, own = get_session({"spark.master": f"local[{RANKS}]"}, app_name="feed")
    whole = [F.pmod(F.xxhash64("id", F.lit(name)), F.lit(top)).cast("int").alias(name) for name, top in INTS.items()]
    real = [F.randn(seed).cast("float").alias(name) for seed, name in enumerate(FLOATS)]
    table = spark.range(rows).select(*whole, *real)
    in_hash_order(table, ("row", "user_idx"), FILES).write.format("delta").save(folder)
    files = [local_path(file) for file in spark.read.format("delta").load(folder).inputFiles()]
    if own:
        spark.stop()
    return sorted(files)


# -- what is timed: each function opens the files and returns an Epoch -------------------------------------------------


def ours(files: Sequence[str], rank: int, pool_rows: int, reader: str) -> Epoch:
    import torch

    feed = Feed(files, tuple(INTS), FLOATS, BATCH, 0, rank, RANKS, reader=reader, pool_rows=pool_rows)

    def epoch(number: int) -> int:
        rows = 0
        for batch in feed.batches(number):
            torch.from_numpy(batch.ints), torch.from_numpy(batch.floats)
            rows += int((batch.weights > 0).sum())
        return rows

    return epoch


def petastorm(files: Sequence[str], rank: int, shuffled: bool, pool: str, workers: int) -> Any:
    logging.getLogger("petastorm").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore")
    from petastorm import make_batch_reader

    return make_batch_reader(
        [f"file://{file}" for file in files], schema_fields=list(NAMES), reader_pool_type=pool, workers_count=workers,
        results_queue_size=2 * workers, shuffle_row_groups=shuffled, seed=0, cur_shard=rank, shard_count=RANKS,
    )  # fmt: skip


def loader(
    files: Sequence[str], rank: int, pool_rows: int, kind: str, buffer: float, pool: str = "thread", workers: int = 1
) -> Epoch:
    """One of petastorm's loaders. Its buffer, of both ranks together, is `buffer` times as large as our pool."""
    reader = petastorm(files, rank, True, pool, workers)  # before torch, as petastorm demands
    from petastorm import pytorch

    batches = getattr(pytorch, kind)(reader, BATCH, shuffling_queue_capacity=int(buffer * pool_rows / RANKS))

    def epoch(number: int) -> int:
        batches._batch_acc = []  # else DataLoader 0.12.1 begins with the last rows of the epoch before
        return sum(len(batch["row"]) for batch in batches)

    return epoch


def bare_petastorm(files: Sequence[str], rank: int, pool_rows: int, pool: str, workers: int) -> Epoch:
    reader = petastorm(files, rank, False, pool, workers)

    def epoch(number: int) -> int:
        if number:
            reader.reset()
        return sum(len(part.row) for part in reader)

    return epoch


def bare_arrow(files: Sequence[str], rank: int, pool_rows: int, whole: bool, mapped: bool) -> Epoch:
    import pyarrow.parquet as pq

    def parts() -> Iterable[Any]:
        for file in files[rank::RANKS]:
            opened = pq.ParquetFile(file, memory_map=mapped, buffer_size=0 if mapped else PART)
            if whole:
                for group in range(opened.num_row_groups):
                    yield from opened.read_row_group(group, columns=list(NAMES), use_threads=False).to_batches()
            else:
                yield from opened.iter_batches(PART, columns=list(NAMES), use_threads=False)

    def epoch(number: int) -> int:
        rows = 0
        for batch in parts():
            columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in NAMES]
            rows += len(columns[0])
        return rows

    return epoch


FEEDS = {f"feed {reader}": partial(ours, reader=reader) for reader in ("arrow", "petastorm")}
PEERS: dict[str, Callable[..., Epoch]] = {
    "DataLoader": partial(loader, kind="DataLoader", buffer=0.1),
    "BatchedDataLoader": partial(loader, kind="BatchedDataLoader", buffer=1.0),
    "BatchedDataLoader, tenth of the buffer": partial(loader, kind="BatchedDataLoader", buffer=0.1),
    "BatchedDataLoader, no pool": partial(loader, kind="BatchedDataLoader", buffer=0.1, pool="dummy"),
    "bare petastorm": partial(bare_petastorm, pool="thread", workers=1),
    "bare petastorm, 2 threads": partial(bare_petastorm, pool="thread", workers=2),
    "bare petastorm, no pool": partial(bare_petastorm, pool="dummy", workers=1),
    "bare arrow": partial(bare_arrow, whole=True, mapped=False),
    "bare arrow, mapped": partial(bare_arrow, whole=True, mapped=True),
    "bare arrow, in parts": partial(bare_arrow, whole=False, mapped=False),
    "bare arrow, in parts, mapped": partial(bare_arrow, whole=False, mapped=True),
}


def forget(files: Sequence[str]) -> None:
    """Drop the files from the page cache."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def rank_of(
    rank: int, make: Callable[..., Epoch], files: Sequence[str], pool_rows: int, later: int, barrier: Any, answers: Any
) -> None:
    """The code of one process: puts (seconds, rows) of each epoch; epoch 1 includes opening the files."""
    import pyarrow as pa
    import torch

    pa.set_cpu_count(1)
    torch.set_num_threads(1)
    from petastorm import make_batch_reader, pytorch  # noqa: F401  imported before the clock starts

    epoch: Epoch | None = None
    found = []
    for number in range(1 + later):
        if number == 0 and rank == 0:
            forget(files)
        barrier.wait()
        began = time.perf_counter()
        epoch = epoch or make(files, rank, pool_rows)
        rows = epoch(number)
        barrier.wait()  # the slower rank counts
        found.append((time.perf_counter() - began, rows))
    answers.put(found)
    answers.close()
    answers.join_thread()
    os._exit(0)  # petastorm's readers have threads that would not end


def rates(
    make: Callable[..., Epoch], files: Sequence[str], pool_rows: int, rows: int, later: int = LATER
) -> tuple[float, float]:
    """Million rows a second in epoch 1 and in the best later one."""
    context = mp.get_context("spawn")
    barrier, answers = context.Barrier(RANKS), context.Queue()
    ranks = [
        context.Process(target=rank_of, args=(rank, make, files, pool_rows, later, barrier, answers))
        for rank in range(RANKS)
    ]
    for process in ranks:
        process.start()
    found = np.array([answers.get(timeout=300) for _ in ranks])  # rank, epoch, (seconds, rows)
    for process in ranks:
        process.join()
    assert (found[:, :, 1].sum(axis=0) == rows).all(), f"{found[:, :, 1]} of {rows} rows"
    rate = rows / found[:, :, 0].max(axis=0) / 1e6
    return float(rate[0]), float(rate[1:].max())


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """No data set is read; one run, `seeds` is not used."""
    rows = 100_000 if quick else ROWS
    pool_rows = POOL_ROWS * rows // ROWS
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        files = write(f"{folder}/rows", rows)
        for name, make in {**PEERS, **FEEDS}.items():
            slow = name == "DataLoader"
            some = files[:RANKS] if slow else files
            found[name] = rates(make, some, pool_rows, rows_of(some), 1 if slow else LATER)
            print(f"{name:40s} {found[name][0]:8.3f} M rows/s in epoch 1, {found[name][1]:8.3f} later", flush=True)
    figures: dict[str, Any] = {name: {"first": round(a, 3), "later": round(b, 3)} for name, (a, b) in found.items()}
    for feed in FEEDS:
        for peer in ("DataLoader", "BatchedDataLoader", feed.replace("feed", "bare")):
            best = [max(found[name][at] for name in PEERS if name.split(",")[0] == peer) for at in (0, 1)]
            ratio = [round(mine / theirs, 2) for mine, theirs in zip(found[feed], best, strict=True)]
            figures[f"{feed} over {peer}"] = dict(zip(("first", "later"), ratio, strict=True))
            print(f"{feed} over {peer:20s} {ratio[0]:8.2f} in epoch 1, {ratio[1]:8.2f} later")
    return {**figures, "rows": rows, "batch": BATCH}


def rows_of(files: Sequence[str]) -> int:
    import pyarrow.parquet as pq

    return sum(pq.ParquetFile(file).metadata.num_rows for file in files)
