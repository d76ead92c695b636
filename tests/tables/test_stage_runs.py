"""stage_runs: rows of this run and of killed ones, each once; old ones are deleted."""

from datetime import date, datetime
from pathlib import Path

from pyspark.sql import Row, SparkSession

from recspark.tables import stage_runs
from recspark.tables.stage_runs import TABLE
from recspark.warehouse.stage_log import StageRun
from recspark.warehouse.store import Store
from tests.stages import hand_made

FIRST = StageRun(
    "a", "2024-03-01", "items", "done", "2024-03-02T02:00:00.000+00:00", "2024-03-02T02:01:30.000+00:00",
    rows_in=5, rows_out=3, rejected=2, version=7, note="n",
)  # fmt: skip
KILLED = StageRun("a", "2024-03-01", "retriever", "killed", "2024-03-02T02:01:31.000+00:00")
FAILED = StageRun(
    "b", "2023-03-01", "items", "failed", "2023-03-02T02:00:00.000+00:00", "2023-03-02T02:00:01.000+00:00", error="e"
)


def rows(store: Store) -> list[Row]:
    return list(store.read(TABLE).orderBy("started_at").collect())


def test_rows_are_added_once(spark: SparkSession, tmp_path: Path) -> None:
    """The run `b` also brings what `a` left; then it dies before it has noted its commit, and `c` brings all again."""
    config = hand_made.config(tmp_path)
    stage_runs.append(Store(spark, config, "b"), [FIRST, KILLED, FAILED])
    store = Store(spark, config, "c")
    stage_runs.append(store, [FIRST, KILLED, FAILED])
    assert len(list((tmp_path / "stage_runs" / "_delta_log").glob("*.json"))) == 1
    failed, first, killed = rows(store)
    assert first == Row(
        run_id="a", run_date=date(2024, 3, 1), stage="items", status="done", started_at=datetime(2024, 3, 2, 2),
        ended_at=datetime(2024, 3, 2, 2, 1, 30), rows_in=5, rows_out=3, rejected=2, version=7, note="n", error=None,
    )  # fmt: skip
    assert (killed.status, killed.ended_at, failed.error) == ("killed", None, "e")
    own = StageRun("c", "2024-03-01", "items", "skipped", "2024-03-03T02:00:00+00:00")
    stage_runs.append(store, [KILLED, own])
    assert [row.run_id for row in rows(store)] == ["b", "a", "a", "c"]


def test_rows_of_more_than_a_year_ago_are_deleted(spark: SparkSession, tmp_path: Path) -> None:
    """2023-03-02 is 366 days before 2024-03-02."""
    store = Store(spark, hand_made.config(tmp_path), "b")
    assert not stage_runs.drop_old(store, date(2024, 3, 3))  # no table
    stage_runs.append(store, [FIRST, FAILED])
    assert not stage_runs.drop_old(store, date(2024, 3, 1))
    assert len(rows(store)) == 2
    assert stage_runs.drop_old(store, date(2024, 3, 3))
    assert [row.run_id for row in rows(store)] == ["a"]
