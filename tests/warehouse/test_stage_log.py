"""What runs write down of their stages before it is in a table."""

import json
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import pytest

from recspark import model_folder
from recspark.summary import Summary
from recspark.warehouse import stage_log
from recspark.warehouse.stage_log import StageLog, StageRun

NIGHT = date(2024, 3, 1)


def statuses(warehouse: Path) -> list[tuple[str, str, str]]:
    return [(one.run_id, one.stage, one.status) for one in stage_log.read(str(warehouse))]


def test_a_stage_is_written_down_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    entries = StageLog(str(tmp_path), "a", NIGHT)
    entries.begin("items")
    assert statuses(tmp_path) == [("a", "items", "running")]
    entries.end(Summary("items", rows_in=5, rows_out=2, rejected={"x": 1, "y": 2}, note="n", version=7))
    entries.begin("retriever")
    entries.end(Summary("retriever", skipped=True))
    entries.begin("ranker")
    entries.fail(stage_log.HELD, "e" * 5000)
    items, retriever, ranker = stage_log.read(str(tmp_path))
    assert items == StageRun(
        "a", "2024-03-01", "items", "done", items.started_at, items.ended_at, 5, 2, 3, 7, "n", None
    )
    assert items.ended_at and datetime.fromisoformat(items.started_at) <= datetime.fromisoformat(items.ended_at)
    assert (retriever.status, retriever.note, retriever.version) == ("skipped", None, None)
    assert (ranker.status, ranker.rows_in) == ("held", None) and ranker.error == "e" * 2000


def test_the_next_run_closes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Twice killed: the rows of both wait, and only those that were running are `killed`."""
    for run_id in ("a", "b"):
        entries = StageLog(str(tmp_path), run_id, NIGHT)
        entries.begin("items")
        entries.end(Summary("items"))
        entries.begin("retriever")
    third = StageLog(str(tmp_path), "c", NIGHT)
    assert [(one.run_id, one.status) for one in third.rows] == [
        ("a", "done"), ("a", "killed"), ("b", "done"), ("b", "killed"),
    ]  # fmt: skip
    assert all(one.ended_at is None for one in third.rows if one.status == "killed")
    third.clear()
    assert statuses(tmp_path) == []


def test_a_failure_before_any_stage_or_after_its_end_has_no_row(tmp_path: Path) -> None:
    entries = StageLog(str(tmp_path), "a", NIGHT)
    entries.fail(stage_log.FAILED, "e")
    assert entries.rows == []
    entries.begin("items")
    entries.end(Summary("items"))
    entries.fail(stage_log.FAILED, "e")
    assert statuses(tmp_path) == [("a", "items", "done")]


def test_half_a_file_or_one_of_another_version_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "_state" / "stages.json"
    file.parent.mkdir()
    row = StageRun("a", "2024-03-01", "items", "done", "2024-03-01T02:00:00+00:00")
    for text in ('[{"run_', '[{"run_id": "a"}]', json.dumps([{**row.__dict__, "more": 1}])):
        file.write_text(text)
        assert StageLog(str(tmp_path), "b", NIGHT).rows == []
    file.write_text(json.dumps([replace(row, status="running").__dict__]))
    assert len(StageLog(str(tmp_path), "b", NIGHT).rows) == 1


def test_a_storage_that_fails_does_not_end_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str, text: str) -> None:
        raise OSError(28, "No space left on device")

    entries = StageLog(str(tmp_path), "a", NIGHT)
    monkeypatch.setattr(model_folder, "write_file", full)
    entries.begin("items")
    entries.end(Summary("items"))
    assert [one.status for one in entries.rows] == ["done"]
