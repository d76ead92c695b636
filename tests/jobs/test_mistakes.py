"""Thirty mistakes that people make in a YAML file or on the command line: exit code 2, one line, nothing written but
its row in stage_runs.

Half of them are told before Spark starts; for those the session is taken away, so starting it would be another error.
"""

import json
import re
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from recspark import cli, pipeline
from recspark.config import load
from recspark.warehouse import lease, unfinished

BASE = """
warehouse: {folder}/warehouse
run_date: 2024-03-01
source:
  interactions:
    format: csv
    paths: ["{folder}/events.csv"]
    options: {{header: "true"}}
    scenario: shop
    user_id: who
    item_id: what
    event_time: at
    value: price
  items:
    format: csv
    paths: ["{folder}/events.csv"]
    options: {{header: "true"}}
    item_id: what
    text: title
training_examples:
  tasks: [{{name: buy, kind: binary, sql: "count(*) > 0"}}]
"""
SOURCE = "source.interactions"

# name -> (what is replaced in BASE or a list of --set, what the line must say)
BEFORE_SPARK: dict[str, tuple[tuple[str, str] | list[str], str]] = {
    "a tab in the YAML": (("    scenario: shop", "\tscenario: shop"), "is not YAML"),
    "a missing colon": (("warehouse:", "warehouse"), "is not YAML"),
    "a misspelt key": (["recomendations={k: 5}"], "unknown key `recomendations`, did you mean `recommendations`?"),
    "a misspelt key below": ([f"{SOURCE}.user=who"], f"unknown key `{SOURCE}.user`, did you mean `user_id`?"),
    "a misspelt key that is required": (
        ("    user_id: who", "    userid: who"),
        f"shop.yaml: unknown key `{SOURCE}.userid`, did you mean `user_id`?",
    ),
    "a key that is missing": (("    user_id: who\n", ""), f"required key `{SOURCE}.user_id` is missing"),
    "no warehouse": (("warehouse: {folder}/warehouse\n", ""), "required key `warehouse` is missing"),
    "one path for a list": (
        ["source.interactions.paths=3"],
        "`source.interactions.paths`: found 3, expected a list, such as [a, b]",
    ),
    "a number for a section": (["ranker=5"], "`ranker`: found 5, expected a section: keys and values"),
    "a number for a dictionary": (["tables=5"], "`tables`: found 5, expected keys and values, such as {a: b}"),
    "a text for a number": (["recommendations.k=ten"], "`recommendations.k`: found 'ten'"),
    "a number out of its range": (["recommendations.k=0"], "`recommendations.k`: found 0"),
    "an unknown format": ([f"{SOURCE}.format=excel"], f"`{SOURCE}.format`: found 'excel'"),
    "a path that is no list": ([f"{SOURCE}.paths=events.csv"], f"`{SOURCE}.paths`: found 'events.csv'"),
    "a table without its name": ([f"{SOURCE}.format=table"], "format `table` needs `table: catalog.schema.name`"),
    "a first task that cannot rank": (
        ["training_examples.tasks=[{name: spend, kind: regression, sql: sum(value)}]"],
        "a binary one first",
    ),
    "two tasks of one name": (
        ["training_examples.tasks=[{name: a, kind: binary, sql: 'true'}, {name: a, kind: binary, sql: 'true'}]"],
        "tasks with distinct names",
    ),
    "more items than candidates": (["recommendations.k=100"], "candidates.depth: found 60, expected at least"),
    "an unknown transfer": (["ranker.transfer=[joint, magic]"], "`ranker.transfer.1`: found 'magic'"),
    "a date that is none": (["run_date=yesterday"], "`run_date`: found 'yesterday'"),
    "a --set without a value": (["recommendations.k"], "found no `=` after a key"),
    "rules beside given candidates": (
        ["candidates.source={format: csv, paths: [x]}", "scenarios.default.where=item_id IS NOT NULL"],
        "candidates.source: exactly its rows are ranked",
    ),
}
WITH_SPARK: dict[str, tuple[tuple[str, str] | list[str], str]] = {
    "a file that is not there": (
        [f"{SOURCE}.paths=[/no/such.csv]"],
        r"source.interactions.paths: /no/such.csv does not",
    ),
    "a table that is not there": (
        [f"{SOURCE}={{format: table, table: no.such, scenario: a, user_id: b, item_id: c, event_time: d}}"],
        "no.such does not exist",
    ),
    "another format than the file's": (
        [f"{SOURCE}.format=parquet"],
        "damaged, cut off or of another format",
    ),
    "a column that is not there": ([f"{SOURCE}.user_id=whom"], "source.interactions.user_id: column whom"),
    "SQL that does not parse": ([f"{SOURCE}.scenario='upper(shop'"], "source.interactions.scenario: "),
    "a price that is a word": ([f"{SOURCE}.value=title"], "source.interactions.value: none of 400 rows could be cast"),
    "a task over a column that is not there": (
        ["training_examples.tasks=[{name: buy, kind: binary, sql: sum(wieght) > 0}]"],
        "training_examples.tasks: .*wieght",
    ),
    "a rule over a column that is not there": (
        ["scenarios.default.where=stock > 0"],
        "scenarios.default.where: column stock",
    ),
    "a relation over a column that is not there": (
        ["item_facts={relations: {brand: brnd}}"],
        "item_facts.relations.brand: column brnd",
    ),
    "an encoder that is not there": (["item_embeddings.encoder=/no/encoder"], "/no/encoder"),
    "a condition that no row meets": ([f"{SOURCE}.where=shop = 'moon'"], "no row matches"),
    "a run date before all events": (["run_date=1999-01-01"], "1999-01-01"),
    "text of the items in a column that is not there": (["source.items.text=titel"], "source.items.text: column titel"),
}

NEEDS_THE_ROWS = ("a price that is a word", "a run date before all events")


def write(folder: Path) -> None:
    start = datetime(2024, 1, 1)
    rows = [
        f"{'de' if n % 2 else 'fr'},u{n % 20},i{n % 12},{start + timedelta(hours=n)},{n % 7}.5,Lamp {n % 12}"
        for n in range(400)
    ]
    (folder / "events.csv").write_text("\n".join(("shop,who,what,at,price,title", *rows)) + "\n")


def run(folder: Path, change: tuple[str, str] | list[str], capsys: Any) -> tuple[int, str, str]:
    """(exit code, the line of the error, the summary's error) of a night with the mistake."""
    write(folder)
    old, new = change if isinstance(change, tuple) else ("", "")
    assert old in BASE
    (folder / "shop.yaml").write_text((BASE.replace(old, new) if old else BASE).format(folder=folder))
    sets = () if isinstance(change, tuple) else tuple(change)
    code = cli.run(tuple(pipeline.STAGES), f"{folder}/shop.yaml", None, sets)
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and captured.err.splitlines()[-1] == errors[0], captured.err[-2000:]
    assert "Traceback" not in captured.err
    [summary] = captured.out.splitlines()
    return code, errors[0], json.loads(summary)["error"]


@pytest.mark.parametrize("name", BEFORE_SPARK)
def test_a_mistake_is_told_before_spark_starts(tmp_path: Path, name: str, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(pipeline, "get_session", lambda *_: pytest.fail("Spark was started"))
    change, message = BEFORE_SPARK[name]
    code, line, summary = run(tmp_path, change, capsys)
    assert code == 2 and message in line and summary in line
    assert not (tmp_path / "warehouse").exists()


@pytest.mark.parametrize("name", WITH_SPARK)
def test_a_mistake_is_told_before_anything_is_learnt(spark: Any, tmp_path: Path, name: str, capsys: Any) -> None:
    change, message = WITH_SPARK[name]
    code, line, _ = run(tmp_path, change, capsys)
    assert code == 2
    assert re.search(message, line), line
    built = {path.name for path in (tmp_path / "warehouse").glob("*")} - {"_lease", "_state", "stage_runs"}
    assert not built or name in NEEDS_THE_ROWS, built
    assert "candidates" not in built


def test_another_run_has_the_warehouse(spark: Any, tmp_path: Path, capsys: Any) -> None:
    with lease.hold(f"{tmp_path}/warehouse", "other"):
        code, line, _ = run(tmp_path, [], capsys)
    assert code == 4 and "other" in line and not (tmp_path / "warehouse" / "interactions").exists()


def test_a_run_can_wait_for_the_other(spark: Any, tmp_path: Path, capsys: Any) -> None:
    write(tmp_path)
    (tmp_path / "shop.yaml").write_text(BASE.format(folder=tmp_path))
    other = lease.acquire(f"{tmp_path}/warehouse", "other")
    assert isinstance(other, lease.Held)
    other.start()
    threading.Timer(1.0, other.end).start()
    assert cli.run(("interactions",), f"{tmp_path}/shop.yaml", wait_s=60) == 0, capsys.readouterr().err[-2000:]


def test_there_are_thirty() -> None:
    assert len(BEFORE_SPARK) + len(WITH_SPARK) + 1 >= 30


def test_a_night_of_the_far_future_would_hide_all_others(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """Tomorrow is allowed: a clock may be behind, and the night of the next day may be made in the evening."""
    monkeypatch.setattr(pipeline, "get_session", lambda *_: pytest.fail("Spark was started"))
    tomorrow = datetime.now(timezone.utc).date() + timedelta(days=1)
    after = tomorrow + timedelta(days=1)
    code, line, _ = run(tmp_path, [f"run_date={after}"], capsys)
    assert code == 2 and line == f"error: run_date: found {after}, expected at most tomorrow ({tomorrow}, UTC)"
    config = load.load(f"{tmp_path}/shop.yaml", ())
    assert cli.parse_run_date(str(tomorrow), config) == tomorrow


def test_a_restart_after_midnight_is_of_the_night_that_was_begun(tmp_path: Path, monkeypatch: Any) -> None:
    write(tmp_path)
    (tmp_path / "shop.yaml").write_text(BASE.replace("run_date: 2024-03-01", "").format(folder=tmp_path))
    config = load.load(f"{tmp_path}/shop.yaml", ())
    yesterday = datetime.now(timezone.utc).date() - timedelta(days=1)
    monkeypatch.setattr(unfinished, "of", lambda warehouse, now: yesterday if warehouse == config.warehouse else None)
    assert cli.parse_run_date(None, config) == yesterday
    assert cli.parse_run_date("2024-01-15", config) == datetime(2024, 1, 15).date()
    assert cli.parse_run_date(None, config.model_copy(update={"run_date": yesterday.replace(year=2020)})).year == 2020
