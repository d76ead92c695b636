"""published_runs: one row a run, repaired from the commits on recommendations."""

from datetime import date, datetime
from pathlib import Path

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import Row, SparkSession

from recspark.config.schema import Config
from recspark.tables import published_runs, recommendations
from recspark.tables.published_runs import HELD, PUBLISHED, TABLE, Versions
from recspark.warehouse.store import Store
from tests.stages import hand_made

NIGHT = date(2024, 3, 1)


def publish(spark: SparkSession, config: Config, run_id: str) -> Store:
    """The commit on recommendations, without the row that follows it."""
    store = Store(spark, config, run_id)
    row = (NIGHT, "DE", "u0", 1, "i1", 0.5, "linear", "linear", "often with i0", run_id)
    stamp = {"run_date": str(NIGHT), **Versions("hash", {"linear": "m1"}, {"items": "t@3"}).metadata()}
    frame = spark.createDataFrame([row], recommendations.TABLE.schema)
    store.replace(recommendations.TABLE, frame, where=f"run_date = '{NIGHT}'", metadata=stamp)
    return store


def rows(store: Store) -> dict[str, Row]:
    return {row.run_id: row for row in store.read(TABLE).collect()}


def test_a_run_that_died_between_the_commits_gets_its_row(spark: SparkSession, tmp_path: Path) -> None:
    config = hand_made.config(tmp_path)
    publish(spark, config, "a")
    published_runs.write(Store(spark, config, "h"), NIGHT, HELD, "1 rows with a null", Versions("hash"))
    again = Store(spark, config, "later")
    assert published_runs.repair(again, recommendations.TABLE) == ["a"]
    found = rows(again)
    assert (found["a"].status, found["h"].status) == (PUBLISHED, HELD)
    assert found["a"].reason == "repaired from commit 0 of recommendations"
    assert (found["a"].model_versions, found["a"].input_versions) == ({"linear": "m1"}, {"items": "t@3"})
    assert isinstance(found["a"].published_at, datetime)


def test_what_has_its_row_is_left_alone_and_read_from_the_log(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = hand_made.config(tmp_path)
    store = publish(spark, config, "a")
    published_runs.write(store, NIGHT, PUBLISHED, "10 rows", Versions("hash"))
    publish(spark, config, "b")
    assert published_runs.repair(Store(spark, config, "c"), recommendations.TABLE) == ["b"]
    monkeypatch.setattr(published_runs, "_known", lambda *args: pytest.fail("no row need be read"))
    later = Store(spark, config, "d")
    assert published_runs.repair(later, recommendations.TABLE) == []
    assert rows(later)["a"].reason == "10 rows"


def test_nothing_published_is_nothing_to_repair(spark: SparkSession, tmp_path: Path) -> None:
    assert published_runs.repair(Store(spark, hand_made.config(tmp_path), "a"), recommendations.TABLE) == []


def test_the_table_refuses_another_status(spark: SparkSession, tmp_path: Path) -> None:
    store = Store(spark, hand_made.config(tmp_path), "a")
    published_runs.write(store, NIGHT, HELD, "why", Versions("hash"))
    with pytest.raises(Py4JJavaError, match="CHECK constraint known_status"):
        published_runs.write(store, NIGHT, "publishd", "why", Versions("hash"))
    assert rows(store)["a"].status == HELD
