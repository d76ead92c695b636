"""The notebook as plain Python, on a published night."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "quickstart.py"


def test_quickstart_runs(published: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    warehouse, night = published
    monkeypatch.setattr(sys, "argv", ["quickstart.py", str(warehouse)])
    names = runpy.run_path(str(NOTEBOOK))
    assert str(names["run_date"]) == night.result["run_date"]
    assert names["one"].count() % 10 == 0
    assert "gbdt" in capsys.readouterr().out
    assert (warehouse / "quickstart.html").stat().st_size > 1000


def test_it_is_in_databricks_source_format() -> None:
    lines = NOTEBOOK.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Databricks notebook source"
    assert lines.count("# COMMAND ----------") >= 5
