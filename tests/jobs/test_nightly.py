"""A night from raw events to the published table on real input, the same night again, and the night after."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import functions as F

from recspark import cli, pipeline
from recspark.warehouse.lease import hold
from tests.nights import RunNight, only_countries
from tests.paths import ROOT

K = 10
HISTORY = "stage_runs"


def table(spark: Any, warehouse: Path, noun: str) -> Any:
    return spark.read.format("delta").load(f"{warehouse}/{noun}")


def versions(warehouse: Path) -> dict[str, list[str]]:
    """The commits of every table but the history of runs; a rerun must not add any."""
    logs = sorted(log for log in warehouse.glob("*/_delta_log") if log.parent.name != HISTORY)
    return {log.parent.name: sorted(f.name for f in log.glob("*.json")) for log in logs}


def data_files(warehouse: Path) -> set[str]:
    files = (file.relative_to(warehouse) for file in warehouse.rglob("*.parquet"))
    return {str(file) for file in files if "_delta_log" not in file.parts and file.parts[0] != HISTORY}


def test_every_eligible_user_gets_exactly_k(spark: Any, published_night: Any) -> None:
    warehouse, _ = published_night
    lists = table(spark, warehouse, "recommendations")
    events = table(spark, warehouse, "interactions")
    eligible = events.select("scenario", "user_id").distinct().count()
    scenarios = events.select("scenario").distinct().count()
    per_user = lists.groupBy("scenario", "user_id").agg(
        F.count("*").alias("n"),
        F.countDistinct("item_id").alias("items"),
        F.min("rank").alias("first"),
        F.max("rank").alias("last"),
        F.countDistinct("rank").alias("ranks"),
    )
    assert per_user.count() == eligible + scenarios  # one default list a scenario
    wrong = per_user.where(f"n <> {K} OR items <> {K} OR first <> 1 OR last <> {K} OR ranks <> {K}")
    assert wrong.count() == 0
    assert (
        lists.where("score IS NULL OR isnan(score) OR reason IS NULL OR source IS NULL OR model IS NULL").count() == 0
    )


def test_no_seen_item_unless_repeated(spark: Any, published_night: Any) -> None:
    warehouse, _ = published_night
    seen = table(spark, warehouse, "interactions").select("user_id", "item_id").distinct()
    again = table(spark, warehouse, "recommendations").join(seen, on=["user_id", "item_id"], how="inner")
    assert again.where("source <> 'repeat'").count() == 0


def test_scores_never_rise_with_rank(spark: Any, published_night: Any) -> None:
    warehouse, _ = published_night
    lists = table(spark, warehouse, "recommendations")
    later = lists.select("scenario", "user_id", (F.col("rank") - 1).alias("rank"), F.col("score").alias("next"))
    assert lists.join(later, on=["scenario", "user_id", "rank"], how="inner").where("next > score").count() == 0


def test_published_runs_and_metrics_describe_the_night(spark: Any, published_night: Any) -> None:
    warehouse, night = published_night
    runs = table(spark, warehouse, "published_runs").collect()
    assert [(r.run_id, r.status) for r in runs] == [(night.result["run_id"], "published")]
    metrics = table(spark, warehouse, "model_metrics").where("scenario = '__all__' AND slice = 'all'")
    values = {(r.metric, r.model): r.value for r in metrics.where("metric IN ('ndcg@10', 'gauc')").collect()}
    assert {"popular", "linear", "content"} <= {model for metric, model in values if metric == "ndcg@10"}
    # A random order has a gauc of .5 within lists; these have .59 to .62.
    assert min(values["gauc", model] for model in ("gbdt", "ranker", "blend")) > 0.55, values
    metrics = table(spark, warehouse, "model_metrics")
    decisions = metrics.where("metric LIKE 'gain%' AND note IS NOT NULL")
    assert decisions.count() > 0


def test_every_stage_of_the_night_has_its_row(spark: Any, published_night: Any) -> None:
    """As the summary says it, and one after the other."""
    warehouse, night = published_night
    rows = table(spark, warehouse, HISTORY).where(F.col("run_id") == night.result["run_id"]).orderBy("started_at")
    found = rows.collect()
    assert [row.stage for row in found] == list(pipeline.STAGES)
    for row, said in zip(found, night.result["stages"].values(), strict=True):
        assert (row.status, row.error) == ("skipped" if said["skipped"] else "done", None)
        assert (row.rows_in, row.rows_out, row.version) == (said["rows_in"], said["rows_out"], said["version"])
        assert (row.rejected, row.note or "") == (sum(said["rejected"].values()), said["note"])
        assert abs((row.ended_at - row.started_at).total_seconds() - said["seconds"]) < 1
    assert all(one.ended_at <= other.started_at for one, other in pairwise(found))
    assert found[0].rejected > 0 and str(found[0].run_date) == "2011-12-10"


def test_the_same_night_again_changes_nothing(spark: Any, run_night: RunNight, published_night: Any) -> None:
    warehouse, _ = published_night
    before = versions(warehouse), data_files(warehouse)
    again = run_night(warehouse)
    assert again.code == 0, again.stderr[-2000:]
    assert (versions(warehouse), data_files(warehouse)) == before
    states = {name: stage["skipped"] for name, stage in again.result["stages"].items()}
    assert all(states.values()), states
    runs = table(spark, warehouse, HISTORY).where(F.col("run_id") == again.result["run_id"]).orderBy("started_at")
    assert [(row.stage, row.status) for row in runs.collect()] == [(name, "skipped") for name in pipeline.STAGES]


def test_the_next_night_keeps_what_has_not_changed(spark: Any, run_night: RunNight, own_night: Path) -> None:
    night = run_night(own_night, run_date="2011-12-11")
    assert night.code == 0, night.stderr[-2000:]
    for stage in ("training_examples", "ranker"):  # the same closed windows: nothing to learn again
        assert night.result["stages"][stage]["skipped"], stage
    dates = table(spark, own_night, "recommendations").groupBy("run_date").count().collect()
    counts = {str(r.run_date): r["count"] for r in dates}
    assert set(counts) == {"2011-12-10", "2011-12-11"}
    assert counts["2011-12-10"] == counts["2011-12-11"]


def test_given_candidates_are_ranked(spark: Any, run_night: RunNight, own_night: Path, tmp_path: Path) -> None:
    """Exactly the given rows are ranked: of a known user with seen and unseen items, and of an unknown user."""
    warehouse = own_night
    known = table(spark, warehouse, "interactions").where("scenario = 'Germany'").orderBy("user_id", "item_id").first()
    items = [row.item_id for row in table(spark, warehouse, "items").orderBy("item_id").limit(14).collect()]
    given_items = {("Germany", known.user_id): {known.item_id, *items[:3]}, ("Mars", "stranger"): set(items)}
    lines = [f"{s},{u},{i}" for (s, u), given in given_items.items() for i in given]
    lines += ["Germany,12,no such item", "Germany,,85123A"]
    (tmp_path / "given.csv").write_text("place,who,what\n" + "\n".join(lines) + "\n")
    source = {"format": "csv", "paths": [str(tmp_path / "given.csv")], "options": {"header": "true"}}
    source |= {"scenario": "place", "user_id": "who", "item_id": "what"}
    night = run_night(warehouse, f"candidates.source={json.dumps(source)}", from_="candidates")
    assert night.code == 0, night.stderr[-2000:]
    assert night.result["stages"]["training_examples"]["skipped"] and night.result["stages"]["ranker"]["skipped"]
    stage = night.result["stages"]["candidates"]
    assert stage["rejected"] == {"candidate: null user_id": 1, "candidate: unknown item": 1}
    found: dict[Any, list[Any]] = {}
    for row in table(spark, warehouse, "recommendations").orderBy("rank").collect():
        found.setdefault((row.scenario, row.user_id), []).append(row)
    assert set(found) == set(given_items)
    assert {row.item_id for row in found["Germany", known.user_id]} == given_items["Germany", known.user_id]
    assert [row.rank for row in found["Mars", "stranger"]] == list(range(1, K + 1))  # of the fourteen
    seen = next(row for row in found["Germany", known.user_id] if row.item_id == known.item_id)
    assert (seen.source, seen.reason) == ("given", "given candidate")
    reasons = table(spark, warehouse, "rejected_events").where("reason LIKE 'candidate:%'")
    assert {row.reason for row in reasons.collect()} == set(stage["rejected"])


def test_two_runs_on_one_warehouse(run_night: RunNight, tmp_path: Path) -> None:
    """The second one stops with one line and changes nothing; afterwards the same command works."""
    warehouse = tmp_path / "w"
    with hold(str(warehouse), "the-other-run"):
        refused = run_night(warehouse, only="interactions")
    assert refused.code == 4
    assert "the-other-run" in refused.stderr
    assert not (warehouse / "interactions").exists()
    assert run_night(warehouse, only="interactions").code == 0


def test_catalog_tables_are_found_again(spark: Any, run_night: RunNight, tmp_path: Path) -> None:
    """A whole night on catalog tables runs in test_cluster; here: the metadata of a commit is read in the next run."""
    spark.sql("CREATE DATABASE IF NOT EXISTS recs")
    settings = ("catalog=spark_catalog.recs", *only_countries("Country = 'Norway'"))
    first = run_night(tmp_path / "models-only", *settings, only="interactions")
    assert first.code == 0, first.stderr[-3000:]
    rows = spark.table("spark_catalog.recs.interactions").count()
    assert rows == first.result["stages"]["interactions"]["rows_out"]
    assert not (tmp_path / "models-only" / "interactions").exists()
    again = run_night(tmp_path / "models-only", *settings, only="interactions")
    assert again.result["stages"]["interactions"]["skipped"]


def test_only_and_from_and_unknown_stage(run_night: RunNight, tmp_path: Path) -> None:
    assert run_night(tmp_path / "w", only="nonsense").code == 2
    alone = run_night(tmp_path / "w", only="interactions")
    assert alone.code == 0
    assert list(alone.result["stages"]) == ["interactions"]
    forced = run_night(tmp_path / "w", only="interactions", force=True)
    assert not forced.result["stages"]["interactions"]["skipped"]


@pytest.mark.parametrize(
    ("overrides", "options", "expected"),
    [
        (("source.interactions.paths=[nowhere.parquet]",), {}, "nowhere.parquet"),
        (("recomendations.k=5",), {}, "did you mean `recommendations`"),
        (("source.interactions.user_id=CustomerIDD",), {}, "CustomerID"),
        (("source.interactions.value=Quantity *",), {}, "source.interactions.value"),
        (("recommendations.k=5000",), {}, "candidates.depth: found 20, expected at least recommendations.k = 5000"),
        ((), {"run_date": "2010-01-01"}, "2010-01-01"),
        ((), {"run_date": "yesterday"}, "YYYY-MM-DD"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run_night: RunNight, tmp_path: Path, overrides: tuple[str, ...], options: dict[str, Any], expected: str
) -> None:
    warehouse = tmp_path / "w"
    bad = run_night(warehouse, *overrides, **options)
    assert bad.code == 2, bad.stderr[-2000:]
    errors = [line for line in bad.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert expected in errors[0]
    assert "Traceback" not in bad.stderr
    assert not (warehouse / "recommendations").exists()


def test_a_scenario_without_any_event_is_a_warning(run_night: RunNight, own_night: Path) -> None:
    """It may open later, as its rule is written before its first event; or be misspelt."""
    before = versions(own_night)
    night = run_night(own_night, "scenarios.overrides={Germny: {items: all}}", only="retriever")
    assert night.code == 0, night.stderr[-2000:]
    (warning,) = (line for line in night.stderr.splitlines() if "scenarios.overrides.Germny" in line)
    assert "no event there before" in warning and "did you mean 'Germany'?" in warning
    assert versions(own_night) == before


def test_command_line_ends_in_one_json_line() -> None:
    """The command itself, without Spark: a bad file is found before any session starts."""
    import subprocess
    import sys

    command = [sys.executable, "jobs/nightly.py", "--config", "conf/missing.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error:") and "conf/missing.yaml does not exist" in done.stderr
    result = json.loads(done.stdout)
    assert result["status"] == "failed" and "run_date" not in result


@pytest.mark.parametrize("crash", (False, True))
def test_standard_output_is_the_json_line_and_the_cause_of_a_failure_stands_last(
    crash: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trainings print their progress; a Python worker's error begins with an empty line."""

    def execute(*_: object) -> None:
        print("ranker: epoch 1/4")
        if crash:
            raise ValueError("\n  the cause\nmany more lines")

    monkeypatch.setattr(pipeline, "execute", execute)
    code = cli.run(tuple(pipeline.STAGES), str(ROOT / "conf" / "online_retail.yaml"))
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert "ranker: epoch 1/4" in printed.err and (code, result["status"]) == ((1, "failed") if crash else (0, "done"))
    if crash:
        assert result["error"] == "ValueError: the cause"
        assert printed.err.splitlines()[-1] == "error: ValueError: the cause"


def test_no_java_says_what_to_install() -> None:
    import subprocess
    import sys

    command = [sys.executable, "jobs/nightly.py", "--config", "conf/online_retail.yaml"]
    env = {"PATH": "/nonexistent", "HOME": "/nonexistent"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "install a JDK 17" in done.stderr
    assert "Traceback" not in done.stderr


def test_stages_run_in_the_order_of_the_data() -> None:
    assert pipeline.choose(tuple(pipeline.STAGES), "ranker", None) == ["ranker", "model_metrics", "recommendations"]
