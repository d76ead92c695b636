"""Rows without Spark are Spark's rows, and what cannot be read so is left to it."""

import json
from datetime import date, datetime, timezone
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recspark.warehouse import snapshot
from recspark.warehouse.store import Store, Table
from tests.stages import hand_made

SMALL = Table("small", "day date, name string, at timestamp, links map<string,string>", ("day", "name"))
PARTS = Table("parts", "day date, name string", ("day",), ("day",))
COLUMNS = ["name", "at", "day"]


def row(day: int, name: str) -> tuple[object, ...]:
    return (date(2024, 3, day), name, datetime(2024, 3, day, 2, 30, tzinfo=timezone.utc), {"a": name})


def by_spark(store: Store) -> list[dict[str, object]]:
    return [one.asDict() for one in store.read(SMALL).select(*COLUMNS).orderBy("name", "at").collect()]


def without(folder: str) -> list[dict[str, object]] | None:
    found = snapshot.read(folder, COLUMNS)
    return found and sorted(found, key=lambda one: (str(one["name"]), str(one["at"])))


def test_rows_are_those_of_spark_before_and_after_a_checkpoint(spark: SparkSession, tmp_path: Path) -> None:
    """Commits that add, overwrite and delete, and a checkpoint at every third one."""
    store = Store(spark, hand_made.config(tmp_path), "run")
    folder = store.name("small")
    assert snapshot.read(folder, COLUMNS) == []
    store.append(SMALL, spark.createDataFrame([row(n, f"n{n}") for n in range(1, 10)], SMALL.schema))
    spark.sql(f"ALTER TABLE delta.`{folder}` SET TBLPROPERTIES ('delta.checkpointInterval' = '3')")
    store.append(SMALL, spark.createDataFrame([row(n, f"m{n}") for n in range(1, 10)], SMALL.schema))
    assert without(folder) == by_spark(store)
    store.delete(SMALL, F.col("name") == "n3")
    store.merge(SMALL, spark.createDataFrame([row(20, "n4"), row(4, "n4")], SMALL.schema))
    assert list((tmp_path / "small" / "_delta_log").glob("*.checkpoint.parquet"))
    store.replace(SMALL, spark.createDataFrame([row(5, "new")], SMALL.schema), where="day = '2024-03-05'")
    found = without(folder)
    assert found == by_spark(store) and found is not None
    assert {one["name"] for one in found} >= {"new", "m3", "n4"} and "n3" not in {one["name"] for one in found}
    for old in sorted((tmp_path / "small" / "_delta_log").glob("*.json"))[:3]:
        old.unlink()  # as Delta cleans its log
    assert without(folder) == found
    one_day = snapshot.read(folder, COLUMNS, ("day", "2024-03-05"))
    assert one_day is not None and [one["name"] for one in one_day] == ["new"]


def test_files_of_other_days_are_not_opened(spark: SparkSession, tmp_path: Path) -> None:
    store = Store(spark, hand_made.config(tmp_path), "run")
    for day in (1, 2):
        store.append(SMALL, spark.createDataFrame([row(day, "a")], SMALL.schema).coalesce(1))
    first = next(file for file in store.read(SMALL).where("day = '2024-03-01'").inputFiles())
    log = (tmp_path / "small" / "_delta_log" / "00000000000000000000.json").read_text()
    (add,) = (json.loads(line)["add"] for line in log.splitlines() if "add" in json.loads(line))
    assert first.endswith(add["path"])
    (tmp_path / "small" / add["path"]).unlink()
    found = snapshot.read(store.name("small"), COLUMNS, ("day", "2024-03-02"))
    assert found is not None and [one["day"] for one in found] == [date(2024, 3, 2)]


def test_what_only_spark_can_read(spark: SparkSession, tmp_path: Path) -> None:
    store = Store(spark, hand_made.config(tmp_path), "run")
    store.append(PARTS, spark.createDataFrame([(date(2024, 3, 1), "a")], PARTS.schema))
    assert snapshot.read(store.name("parts"), ["name"]) is None
    store.append(SMALL, spark.createDataFrame([row(1, "a")], SMALL.schema))
    log = tmp_path / "small" / "_delta_log"
    (log / "00000000000000000002.json").write_text("{}")  # one is missing before it
    assert snapshot.read(store.name("small"), COLUMNS) is None
    (log / "00000000000000000002.json").rename(log / "00000000000000000001.json")
    (log / "00000000000000000001.json").write_text('{"protocol": {"minReaderVersion": 3, "minWriterVersion": 7}}')
    assert snapshot.read(store.name("small"), COLUMNS) is None
