"""The notebook as plain Python, on a copy of a published night: it leaves a chart there."""

import runpy
import sys
from pathlib import Path

import pytest

from tests.nights import Done
from tests.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "quickstart.py"


def test_quickstart_runs(
    published_night: tuple[Path, Done],
    own_night: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, night = published_night
    monkeypatch.setattr(sys, "argv", ["quickstart.py", str(own_night)])
    names = runpy.run_path(str(NOTEBOOK))
    assert str(names["run_date"]) == night.result["run_date"]
    assert names["one"].count() % 10 == 0
    assert "gbdt" in capsys.readouterr().out
    assert (own_night / "quickstart.html").stat().st_size > 1000


def test_it_is_in_databricks_source_format() -> None:
    lines = NOTEBOOK.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Databricks notebook source"
    assert lines.count("# COMMAND ----------") >= 5
