"""--log json: every line of recspark is one JSON object, also that of a crash."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from recspark import cli, pipeline
from recspark.cli import LogAs
from recspark.summary import Summary
from tests.jobs.planted_events import write


def said(folder: Path, capsys: Any) -> list[dict[str, str]]:
    write(folder)
    cli.run(("items",), f"{folder}/shop.yaml", log_as=LogAs.JSON)
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_line_is_an_object_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def execute(*given: Any) -> None:
        advance, finished = given[5:7]
        advance("items")
        finished(Summary("items", rows_in=2, rows_out=1), 0.5)

    monkeypatch.setattr(pipeline, "execute", execute)
    lines = said(tmp_path, capsys)
    assert [line["message"].split(":")[0] for line in lines] == [f"run {lines[0]['run_id']}", "[1/1] items", "items"]
    assert lines[2]["message"] == "items: 2 rows in, 1 out; 0.5 s"
    for line in lines:
        assert list(line) == ["time", "level", "message", "run_id", "run_date"]
        assert (line["level"], line["run_date"]) == ("INFO", "2024-03-01") and line["time"].endswith("+00:00")


def test_a_crash_is_one_line_and_its_cause_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(pipeline, "execute", lambda *_: 1 / 0)
    *_, crash, last = said(tmp_path, capsys)
    assert crash["exception"].startswith("Traceback") and "ZeroDivisionError" in crash["exception"]
    assert (last["level"], last["message"]) == ("ERROR", "ZeroDivisionError: division by zero")


def test_lines_are_text_where_nothing_else_is_said() -> None:
    cli.log_to(cli.Console(stderr=True))  # also after a run in this process that logged JSON
    (handler,) = logging.getLogger("recspark").handlers
    assert not isinstance(handler.formatter, cli.JsonLines)
