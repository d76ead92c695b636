"""The row that counts at a date, and folders that depend on content alone. No source and no stored table."""

from collections.abc import Iterator
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from recspark.config.sources import Feature
from recspark.given_features import IDS_A_SHARD, ITEMS, USERS, FeatureBook, Names
from recspark.tables import given_features as table

OLD, PAST, TONIGHT = date(2024, 2, 12), date(2024, 2, 19), date(2024, 3, 1)
DAYS = (TONIGHT, PAST, OLD)
FAR = IDS_A_SHARD + 1  # of the second shard
NAMES = {USERS: Names(("age",), ("job",), ("likes",)), ITEMS: Names()}
IDS = [("ann", 0, date(2024, 1, 1)), ("bob", 1, date(2024, 2, 14)), ("cold", FAR, None), ("dan", 3, date(2024, 1, 1))]
ROWS = [
    ("ann", None, {"age": 30.0}, {"job": ["nurse"], "likes": ["war", "drama"]}),
    ("ann", datetime(2024, 2, 12), {"age": 31.0}, {}),  # known during that day, so not before it
    ("ann", datetime(2024, 2, 18, 23), {}, {"likes": ["war"]}),
    ("ann", datetime(2024, 3, 1), {"age": 99.0}, {}),
    ("bob", datetime(2024, 1, 1), {"age": 20.0}, {"job": ["baker"]}),
    ("cold", None, {"age": 50.0}, {}),
    ("stranger", None, {"age": 60.0}, {}),
]


def frame(spark: SparkSession, ids: list[Any] = IDS, rows: list[Any] = ROWS, parts: int = 1) -> DataFrame:
    known = spark.createDataFrame(ids, "user_id string, idx int, first date")
    features = spark.createDataFrame(rows, table.USER_FEATURES.schema)
    return table.of_ids(known, features, NAMES[USERS], USERS, with_times=True).repartition(parts)


def look_up(folder: Path, users: list[int]) -> tuple[list[float], list[list[int]], list[list[int]]]:
    book = FeatureBook({0: str(folder)})
    found = book.look_up(USERS, np.array(users), np.zeros(len(users), int))
    texts = [
        [values[a:b].tolist() for a, b in pairwise(offsets)]
        for offsets, values in zip(found.offsets, found.values, strict=True)
    ]
    return found.numbers[:, 0].tolist(), texts[0], texts[1]


@pytest.fixture(scope="module")
def cached(spark: SparkSession) -> Iterator[DataFrame]:
    rows = frame(spark).persist()
    yield rows
    rows.unpersist()


def test_the_newest_value_before_the_date_counts(spark: SparkSession, cached: DataFrame, tmp_path: Path) -> None:
    """Ann is 31 from the day OLD on, and without an age from the evening before PAST on; her 99 becomes known tonight,
    after the lists. Bob comes after OLD, cold never; dan has no row, and nobody has numbered the stranger."""
    table.write(cached, {day: str(tmp_path / str(day)) for day in DAYS}, TONIGHT, NAMES)
    hashes = spark.sql("SELECT xxhash64('nurse'), xxhash64('war'), xxhash64('drama'), xxhash64('baker')").collect()[0]
    nurse, war, drama, baker = hashes
    users, nan = [0, 1, FAR, 3], pytest.approx(float("nan"), nan_ok=True)
    assert look_up(tmp_path / str(OLD), users) == ([30.0, nan, nan, nan], [[nurse], [], [], []],
                                                   [[war, drama], [], [], []])  # fmt: skip
    assert look_up(tmp_path / str(PAST), users) == ([nan, 20.0, nan, nan], [[], [baker], [], []],
                                                    [[war], [], [], []])  # fmt: skip
    assert look_up(tmp_path / str(TONIGHT), users) == ([nan, 20.0, 50.0, nan], [[], [baker], [], []],
                                                       [[war], [], [], []])  # fmt: skip


def test_what_comes_later_leaves_the_past_alone(spark: SparkSession, cached: DataFrame) -> None:
    """A new user with an event of tonight's day before, a new user without one, and a value of after PAST."""
    before, num_ids = table.contents(cached, DAYS, TONIGHT)
    assert [one.num_ids for one in before] == [3, 2, 1]  # cold tonight alone, bob from PAST on
    assert num_ids == {USERS: 4, ITEMS: 0}
    ids = [*IDS, ("new", 4, date(2024, 2, 29)), ("colder", 5, None)]
    rows = [*ROWS, ("new", None, {"age": 1.0}, {}), ("colder", None, {"age": 2.0}, {}),
            ("bob", datetime(2024, 2, 19), {"age": 21.0}, {})]  # fmt: skip
    after, _ = table.contents(frame(spark, ids, rows), DAYS, TONIGHT)
    assert after[1:] == before[1:] and after[0] != before[0]
    earlier = [*ROWS, ("bob", datetime(2024, 2, 18), {"age": 21.0}, {})]
    changed, _ = table.contents(frame(spark, IDS, earlier), DAYS, TONIGHT)
    assert [a == b for a, b in zip(changed, before, strict=True)] == [False, False, True]


def test_a_text_of_another_feature_is_other_content(spark: SparkSession) -> None:
    """Spark hashes lists of lists as if they were one list."""
    found = [
        table.contents(frame(spark, IDS, [("ann", None, {}, {name: ["war"]})]), DAYS, TONIGHT)[0][0]
        for name in ("job", "likes")
    ]
    assert found[0] != found[1]


def test_numbers_of_ids_are_content(spark: SparkSession) -> None:
    swapped = [(user, {0: 3, 3: 0}.get(idx, idx), first) for user, idx, first in IDS]
    found = [table.contents(frame(spark, ids), DAYS, TONIGHT)[0] for ids in (IDS, swapped)]
    assert all(one != other for one, other in zip(*found, strict=True))


def test_partitions_do_not_matter(spark: SparkSession, cached: DataFrame, tmp_path: Path) -> None:
    other = frame(spark, IDS[::-1], ROWS[::-1], parts=4)
    assert table.contents(other, DAYS, TONIGHT) == table.contents(cached, DAYS, TONIGHT)
    for name, rows in (("one", cached), ("four", other)):
        table.write(rows, {TONIGHT: str(tmp_path / name)}, TONIGHT, NAMES)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 13  # two shards of 5 arrays and a manifest, and the folder's manifest
    assert all((tmp_path / "one" / at).read_bytes() == (tmp_path / "four" / at).read_bytes() for at in files)


def test_of_rows_with_one_id_and_time_the_order_does_not_matter(spark: SparkSession) -> None:
    """The larger value; a row without a value loses."""
    ddl = "user_id string, known_from timestamp, numbers array<double>, categories array<array<string>>"
    rows = [("a", None, [1.0], [["x"]]), ("a", None, [2.0], [["w"]]), ("a", None, [None], [["z"]]),
            (None, None, [9.0], [None]), (None, None, [8.0], [None])]  # fmt: skip
    names = Names(("age",), ("job",))
    for order in (rows, rows[::-1]):
        chosen = table.one_a_time(spark.createDataFrame(order, ddl).repartition(2), "user_id")
        assert {r.user_id: r._rows for r in chosen.collect()} == {"a": 3, None: 2}
        assert [tuple(r) for r in table.build(chosen, names, table.USER_FEATURES).collect()] == [
            ("a", None, {"age": 2.0}, {"job": ["w"]})
        ]


def test_coverage_and_different_values_of_tonight(cached: DataFrame) -> None:
    """Of the rows that count tonight: ann likes war, bob is 20 and a baker, cold is 50."""
    assert table.statistics(cached, TONIGHT, NAMES) == {
        (USERS, "age"): (2, 2, 2),
        (USERS, "job"): (1, 1, 1),
        (USERS, "likes"): (1, 1, 1),
    }


def test_columns_are_in_the_order_of_names() -> None:
    kinds = {"b": "number", "z": "categories", "a": "number", "c": "category"}
    features = {name: Feature(kind=kind, sql="x") for name, kind in kinds.items()}
    assert table.names_of(features) == Names(("a", "b"), ("c",), ("z",))
