"""What `recspark status` says of a hand-made warehouse: a published night, a held one, one that was killed."""

import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyspark.sql import SparkSession

from recspark.config.schema import Config
from recspark.stages import status
from recspark.tables import model_metrics, published_runs, stage_runs
from recspark.tables.published_runs import HELD, PUBLISHED, Versions
from recspark.warehouse import lease, stage_log
from recspark.warehouse.stage_log import StageRun
from recspark.warehouse.store import Store
from tests.paths import ROOT
from tests.stages import hand_made

FIRST, SECOND, THIRD = date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)


def stage(run_id: str, run_date: date, name: str, state: str, begun: str, ended: str, **more: Any) -> StageRun:
    day = run_date.isoformat()
    return StageRun(run_id, day, name, state, f"{day}T{begun}.000+00:00", ended and f"{day}T{ended}.000+00:00", **more)


ROWS = [
    stage("a", FIRST, "items", "done", "02:00:00", "02:00:30"),
    stage("a", FIRST, "recommendations", "done", "02:00:30", "02:02:30"),
    stage("m", FIRST, "maintenance", "done", "05:00:00", "05:00:30"),
    # failed first, then held at an earlier stage
    stage("b", SECOND, "items", "done", "02:00:00", "02:00:10"),
    stage("b", SECOND, "night_statistics", "done", "02:00:10", "02:00:20"),
    stage("b", SECOND, "ranker", "failed", "02:00:20", "02:00:30", error="lost"),
    stage("c", SECOND, "items", "skipped", "03:00:00", "03:00:05"),
    stage("c", SECOND, "night_statistics", "held", "03:00:05", "03:00:20", error="input held: users, FR"),
]


def decision(mode: str, scenario: str) -> tuple[Any, ...]:
    return (FIRST, "a", mode, "linear", scenario, "all", model_metrics.DECISION, 1.0, None, None, 9, "why")


def write(spark: SparkSession, config: Config) -> None:
    stage_runs.append(Store(spark, config, "a"), ROWS)
    published_runs.write(Store(spark, config, "a"), FIRST, PUBLISHED, "30 rows, 3 lists of 10", Versions("hash"))
    published_runs.write(Store(spark, config, "c"), SECOND, HELD, "users, FR", Versions("hash"))
    gates = [decision("blend", "FR"), decision("blend", "DE"), decision("linear", "BE")]
    gates += [(FIRST, "a", "blend", "", "FR", "all", "ndcg@10", 0.5, None, None, 9, None)]
    Store(spark, config, "a").append(model_metrics.TABLE, spark.createDataFrame(gates, model_metrics.TABLE.schema))


@pytest.fixture(scope="module")
def config(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Config:
    found = hand_made.config(tmp_path_factory.mktemp("status"))
    write(spark, found)
    return found


EXPECTED = [
    "last nights:",
    "  2024-03-02  held     0 stages built, 1 skipped, 30 s, begun 2024-03-02 03:00, run c",  # 10, 5 and 15 s
    "      night_statistics: input held: users, FR",
    "      to do: correct the source and run the night again; or let it pass: recspark run ... --run-date 2024-03-02 "
    "--accept",
    "  2024-03-01  done     2 stages built, 0 skipped, 2 min, begun 2024-03-01 02:00, run a",  # 30 s and 120 s
    "maintained: 2024-03-01",
    "published: lists of 2024-03-01, 30 rows, 3 lists of 10, run a",
    "  blend in 2: DE, FR",
    "  linear in 1: BE",
]


def test_the_report_needs_no_spark(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "get_session", lambda *_, **__: pytest.fail("Spark was asked"))
    before = sorted(Path(config.warehouse).rglob("*"))
    assert list(status.lines(config)) == [f"warehouse {config.warehouse}", "now: no run", *EXPECTED]
    assert sorted(Path(config.warehouse).rglob("*")) == before


def test_the_command_needs_no_java(config: Config, tmp_path: Path) -> None:
    """In a process of its own: in this one there is a session."""
    source = config.model_dump(mode="json", include={"warehouse", "source"})
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(source))
    command = [sys.executable, "-m", "recspark", "status", "--config", f"{tmp_path}/shop.yaml"]
    env = {"PATH": "/nonexistent", "HOME": "/nonexistent"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[2:] == EXPECTED


def test_a_run_that_goes_on_and_one_that_was_killed(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did is not in the table yet; without its lease it was killed. Its lease is that of this process."""
    running = stage_log.StageLog(config.warehouse, "d", THIRD)
    running.begin("items")
    running.rows[0] = replace(running.rows[0], started_at="2024-03-03T04:00:00.000+00:00")
    running._write()
    try:
        with lease.hold(config.warehouse, "d") as held:
            held.at("items")
            lines = list(status.lines(config))
        assert lines[1].startswith("now: run d in items, for 0 s, last heartbeat 0 s ago")
        assert lines[3] == "  2024-03-03  running  0 stages built, 0 skipped, 0 s, begun 2024-03-03 04:00, run d"
        assert lines[4:] == ["      in items", *EXPECTED[1:]]
        lines = list(status.lines(config))
        assert lines[1] == "now: no run" and lines[3].startswith("  2024-03-03  killed ")
        assert lines[4:6] == [
            "      items: killed",
            "      to do: recspark run ... --run-date 2024-03-03; what is done is skipped",
        ]
    finally:
        running.clear()


def test_a_holder_without_a_heartbeat_seems_to_have_died(config: Config) -> None:
    gone = lease.Lease("x", "elsewhere", 1, since=1000.0, alive=1300.0, stage="ranker")
    assert status._is_running(gone, 1330.0) == "run x in ranker, for 6 min, last heartbeat 30 s ago"
    assert "seems to have died" in status._is_running(gone, 1361.0)  # a minute and a second


def test_tables_of_a_catalog_are_asked_of_spark(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(f"CREATE SCHEMA seen LOCATION '{tmp_path}/seen.db'")
    try:
        config = hand_made.config(tmp_path / "w", catalog="spark_catalog.seen")
        assert list(status.lines(config))[1:] == ["now: no run", "no night yet: recspark run ...", "published: nothing"]
        write(spark, config)
        assert list(status.lines(config))[2:] == EXPECTED
    finally:
        spark.sql("DROP SCHEMA seen CASCADE")
