"""The feed: every row once, the same batches for every reader and number of ranks, resumable at any step."""

import importlib.util
from datetime import date
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from recspark.errors import ConfigError, DataError, SchemaError
from recspark.training.feed import feed as module
from recspark.training.feed.feed import Batch, ExponentialDecay, Feed
from recspark.training.feed.files import RowFilter, local_path, num_rows

SIZES = (1000, 3000, 10, 2500, 1)  # rows of the files; 6,511 in all
ROWS = sum(SIZES)
needs_petastorm = pytest.mark.skipif(
    importlib.util.find_spec("petastorm") is None, reason="petastorm is not part of the newest stack"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Row n has id n, fold n % 10, values n + 0.25 and n + 0.5."""
    folder, start, paths = tmp_path_factory.mktemp("rows"), 0, []
    for number, size in enumerate(SIZES):
        ids = np.arange(start, start + size)
        numbers = {"a": ids + 0.25, "b": ids + 0.5, "weight": ids % 3 + 1}
        table = {"id": ids.astype(np.int32), "fold": (ids % 10).astype(np.int32)}
        table |= {name: values.astype(np.float32) for name, values in numbers.items()}
        paths.append(f"file://{folder}/as of={number}.parquet".replace(" ", "%20"))  # as Spark writes a URI
        pq.write_table(pa.table(table), folder / f"as of={number}.parquet", row_group_size=700)
        start += size
    return paths


def feed(
    files: list[str], rank: int = 0, world: int = 1, reader: str = "arrow", pool: int = 1500, **more: object
) -> Feed:
    names = {"ints": ["id"], "floats": ["a", "b", "weight"], "weight": "weight", "batch_size": 256, "seed": 7, **more}
    return Feed(files, rank=rank, world_size=world, reader=reader, pool_rows=pool, **names)


def ids(batches: list[Batch]) -> np.ndarray:
    return np.concatenate([b.ints[b.weights > 0, 0] for b in batches])


@pytest.mark.parametrize("pool", [1500, 10_000], ids=["pools", "one pool"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_once_and_equal_steps(files: list[str], world: int, pool: int) -> None:
    feeds = [feed(files, rank, world, pool=pool) for rank in range(world)]
    epochs = [list(f.batches(0)) for f in feeds]
    assert {len(batches) for batches in epochs} == {26}  # 6511 / 256 = 25.4
    assert {f.num_steps for f in feeds} == {26}
    assert sorted(np.concatenate([ids(batches) for batches in epochs])) == list(range(ROWS))


def reference(files: list[str], epoch: int, pool: int, lanes: int, size: int = 256, seed: int = 7) -> list[np.ndarray]:
    """Ids of an epoch's batches, without a thought for memory or speed."""
    groups = [
        [np.arange(low, min(low + 700, stop)) for low in range(start, stop, 700)]
        for start, stop in zip(np.cumsum([0, *SIZES[:-1]]), np.cumsum(SIZES), strict=True)
    ]
    order = range(len(SIZES)) if pool >= ROWS else np.random.default_rng((seed, epoch)).permutation(len(SIZES))
    group = np.concatenate([np.full(len(g), 100 * file + n) for file in order for n, g in enumerate(groups[file])])
    row = np.concatenate([g for file in order for g in groups[file]])
    streams = []
    for lane, (mine, of) in enumerate(zip(np.array_split(row, lanes), np.array_split(group, lanes), strict=True)):
        pools: list[list[int]] = [[]]
        last = None
        for one, its in zip(mine, of, strict=True):
            if its != last and len(pools[-1]) * lanes >= pool:
                pools.append([])
            pools[-1].append(one)
            last = its
        keys = [(seed, epoch, number, lane)[: 3 + (lanes > 1)] for number in range(len(pools))]
        streams.append(
            np.concatenate([np.random.default_rng(k).permutation(p) for k, p in zip(keys, pools, strict=True)])
        )
    stream = np.array([streams[at % lanes][at // lanes] for at in range(ROWS)])
    return [stream[at : at + size] for at in range(0, ROWS, size)]


@pytest.mark.parametrize(("pool", "size", "lanes"), [(1500, 256, 4), (1500, 250, 2), (1500, 255, 1), (10_000, 256, 1)])
def test_batches_are_those_of_a_plain_reading(files: list[str], pool: int, size: int, lanes: int) -> None:
    for epoch in range(2):
        expected = reference(files, epoch, pool, lanes, size)
        found = list(feed(files, pool=pool, batch_size=size).batches(epoch))
        assert [batch.ints[:, 0].tolist() for batch in found] == [batch.tolist() for batch in expected]


def test_columns_and_weights_stay_together(files: list[str]) -> None:
    for batch in feed(files).batches(0):
        np.testing.assert_array_equal(
            batch.floats, np.stack([batch.ints[:, 0] + x for x in (0.25, 0.5)] + [batch.weights], 1)
        )
        np.testing.assert_array_equal(batch.weights, batch.ints[:, 0] % 3 + 1)


@pytest.mark.parametrize("pool", [1500, 10_000], ids=["pools", "one pool"])
@pytest.mark.parametrize("world", [2, 3, 4, 8, 12])
def test_any_number_of_ranks_shares_the_batches_of_one(files: list[str], world: int, pool: int) -> None:
    whole = list(feed(files, pool=pool).batches(1))
    for rank in range(world):
        for one, part in zip(whole, feed(files, rank, world, pool=pool).batches(1), strict=True):
            assert len(part) == -(-len(one) // world)
            np.testing.assert_array_equal(part.floats[part.weights > 0], one.floats[rank::world])


@pytest.mark.parametrize("reader", ["arrow", pytest.param("petastorm", marks=needs_petastorm)])
def test_two_ranks_read_no_row_group_twice_but_at_the_seam(
    files: list[str], reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 lanes of 13 row groups that are cut at three places: each rank reads its half and two more at most."""
    read: list[list[tuple[int, int]]] = []
    for name in ("arrow_groups", "_petastorm_groups"):
        real = getattr(module, name)

        def counted(paths: Any, groups: Any, names: Any, real: Any = real) -> Any:
            read[-1] += [(group.file, group.number) for group in groups]
            return real(paths, groups, names)

        monkeypatch.setattr(module, name, counted)
    for rank in range(2):
        read.append([])
        list(feed(files, rank, 2, reader=reader).batches(0))
    num_groups = sum(-(-size // 700) for size in SIZES)
    assert num_groups == 13 and set(read[0]) | set(read[1]) == {
        (file, number) for file, size in enumerate(SIZES) for number in range(-(-size // 700))
    }
    assert len(read[0]) + len(read[1]) <= num_groups + 3


@pytest.mark.parametrize("pool", [1500, 10_000], ids=["pools", "one pool"])
def test_ranks_share_the_batches_of_one_rank(files: list[str], pool: int) -> None:
    whole = list(feed(files, pool=pool).batches(0))
    parts = [list(feed(files, rank, 2, pool=pool).batches(0)) for rank in range(2)]
    for one, even, odd in zip(whole, *parts, strict=True):
        assert len(even) == len(odd) == -(-len(one) // 2)
        np.testing.assert_array_equal(even.ints, one.ints[0::2])
        np.testing.assert_array_equal(odd.ints[odd.weights > 0], one.ints[1::2])
    assert len(whole[-1]) == 6511 - 25 * 256 == 111  # odd: the last row of rank 1 is padding
    assert parts[1][-1].weights[-1] == 0


@needs_petastorm
@pytest.mark.parametrize("pool", [1500, 10_000], ids=["pools", "one pool"])
def test_arrow_and_petastorm_give_the_same_batches(files: list[str], pool: int) -> None:
    arrow, petastorm = (feed(files, reader=reader, pool=pool) for reader in ("arrow", "petastorm"))
    assert (arrow.reader, petastorm.reader) == ("arrow", "petastorm")
    for epoch in range(2):
        for one, other in zip(arrow.batches(epoch), petastorm.batches(epoch), strict=True):
            np.testing.assert_array_equal(one.ints, other.ints)
            np.testing.assert_array_equal(one.floats, other.floats)


def test_an_object_store_is_read_by_arrow(files: list[str]) -> None:
    """petastorm's way to it is gone from pyarrow; `auto` gives the same batches by the other reader."""
    fs = fsspec.filesystem("memory")
    copies = [f"memory://rows/{number}.parquet" for number in range(len(files))]
    for file, copy in zip(files, copies, strict=True):
        fs.pipe_file(copy, Path(local_path(file)).read_bytes())
    remote, local = feed(copies, reader="auto"), feed(files)
    assert remote.reader == "arrow"
    for one, other in zip(remote.batches(0), local.batches(0), strict=True):
        np.testing.assert_array_equal(one.ints, other.ints)
    with pytest.raises(ConfigError, match=r"petastorm, which cannot read memory://.*; set the key to arrow or auto"):
        feed(copies, reader="petastorm")
    fs.rm("/rows", recursive=True)


@pytest.mark.parametrize("pool", [1500, 10_000], ids=["pools", "one pool"])
def test_epochs_and_seeds_differ_and_repeat(files: list[str], pool: int) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return ids(list(feed(files, seed=seed, pool=pool).batches(epoch))).tolist()

    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert order(1, 0) == order(1, 0)
    assert np.ptp(order(1, 0)[:256]) > 256  # shuffled, not just begun elsewhere


@pytest.mark.parametrize("reader", ["arrow", pytest.param("petastorm", marks=needs_petastorm)])
@pytest.mark.parametrize("start", [1, 5, 6, 13, 25, 26])
def test_resumes_at_any_step(files: list[str], reader: str, start: int) -> None:
    whole = list(feed(files, 1, 2).batches(3))
    rest = list(feed(files, 1, 2, reader=reader).batches(3, start))
    assert len(rest) == 26 - start
    for one, other in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(one.floats, other.floats)


@needs_petastorm
@pytest.mark.parametrize("keep", [True, False])
def test_rows_of_a_filter_are_kept_or_left_out(files: list[str], keep: bool) -> None:
    chosen = feed(files, filters=[RowFilter("fold", frozenset({0}), keep=keep)], reader="petastorm")
    expected = [n for n in range(ROWS) if (n % 10 == 0) == keep]
    assert chosen.num_rows == len(expected) == (652 if keep else 5859)  # 0, 10 ... 6510
    assert sorted(ids(list(chosen.batches(0)))) == expected


@pytest.mark.parametrize("reader", ["arrow", pytest.param("petastorm", marks=needs_petastorm)])
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_row_group_of_which_no_row_counts(files: list[str], reader: str, epoch: int) -> None:
    """Ids 1700 to 2399 are the second row group of the second file."""
    filters = [RowFilter("id", frozenset(range(1700, 2400)), keep=False)]
    seen = [feed(files, rank, 2, reader, filters=filters) for rank in range(2)]
    found = np.concatenate([ids(list(part.batches(epoch))) for part in seen])
    assert sorted(found) == [*range(1700), *range(2400, ROWS)]


@needs_petastorm
def test_rows_count_where_all_filters_count_them(files: list[str]) -> None:
    filters = [RowFilter("fold", frozenset({0, 1})), RowFilter("fold", frozenset({0}), keep=False)]
    chosen = feed(files, filters=filters, reader="petastorm")
    expected = [n for n in range(ROWS) if n % 10 == 1]
    assert chosen.num_rows == num_rows(files, filters) == len(expected) == 651  # 1, 11 ... 6501
    assert sorted(ids(list(chosen.batches(0)))) == expected
    assert num_rows(files, [RowFilter("fold", frozenset({11}))]) == 0


def test_weights_decay_with_age(files: list[str]) -> None:
    """Ids as days: 6,510 is the newest; 1,000 days before it a row counts half, 2,000 a quarter of its own weight."""
    batches = list(feed(files, decay=ExponentialDecay("id", 6510, 1000.0)).batches(0))
    weight = dict(zip(ids(batches).tolist(), np.concatenate([b.weights for b in batches]).tolist(), strict=True))
    for day, factor in ((6510, 1.0), (5510, 0.5), (4510, 0.25)):
        assert weight[day] == pytest.approx(factor * (day % 3 + 1))


def test_an_abandoned_epoch_ends_its_thread(files: list[str]) -> None:
    import threading

    for _ in range(3):
        next(feed(files).batches(0))
    assert not [t for t in threading.enumerate() if t.name == "feed"]


def test_a_pool_that_cannot_be_read_is_an_error_and_not_a_hang(files: list[str], tmp_path: Path) -> None:
    copy = tmp_path / "part.parquet"
    copy.write_bytes(Path(local_path(files[1])).read_bytes())
    chosen = feed([*files, str(copy)])
    copy.unlink()
    with pytest.raises(DataError, match=r"part\.parquet is gone"):
        list(chosen.batches(0))


def test_bad_files_say_what_is_wrong(files: list[str]) -> None:
    with pytest.raises(SchemaError, match=r"\['colour'\] are missing, present are \['a', 'b'"):
        feed(files, floats=["a", "colour", "weight"])
    with pytest.raises(DataError, match="hold no row with"):
        feed(files, filters=[RowFilter("fold", frozenset({11}))])
    with pytest.raises(SchemaError, match="`a` is float32 or has nulls"):
        next(feed(files, ints=["a"]).batches(0))


@needs_petastorm
def test_reads_a_pinned_version_after_files_were_removed(spark: SparkSession, tmp_path: Path) -> None:
    """Delta keeps removed files on disk until VACUUM: the list of a version has none of them, and none too few."""
    from pyspark.sql import functions as F

    from recspark.config.schema import Config
    from recspark.warehouse.store import Store, Table

    source = {
        "interactions": {
            "format": "parquet",
            "paths": ["x"],
            "scenario": "s",
            "user_id": "u",
            "item_id": "i",
            "event_time": "t",
        }
    }
    store = Store(spark, Config(warehouse=str(tmp_path), source=source), "run")
    table = Table("rows", "as_of date, id int, value float", ("id",), ("as_of",))

    def slice_(day: int, low: int, high: int) -> DataFrame:
        rows = spark.range(low, high).select(F.lit(date(2020, 1, day)).alias("as_of"), F.col("id").cast("int"))
        return rows.withColumn("value", F.col("id").cast("float"))

    first = store.replace(table, slice_(6, 0, 100).unionByName(slice_(13, 100, 150)))
    second = store.replace(table, slice_(6, 200, 300), where="as_of = '2020-01-06'")

    def read(version: int, **slices: object) -> list[int]:
        chosen = Feed(store.files(table, version, slices), ["id"], ["value"], batch_size=64, reader="petastorm")
        return sorted(ids(list(chosen.batches(0))))

    assert len(list(tmp_path.rglob("as_of=2020-01-06/*.parquet"))) > len(
        store.files(table, second, {"as_of": "2020-01-06"})
    )
    assert read(first) == list(range(150))
    assert read(second) == [*range(100, 150), *range(200, 300)]
    assert read(second, as_of=date(2020, 1, 6)) == list(range(200, 300))
