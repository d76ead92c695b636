"""Which rows a scenario's own night reads, and the report by hand."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.night import night_quality, night_transfer
from recspark.config.load import load
from recspark.errors import ConfigError
from tests.paths import CONF


def test_a_night_alone_reads_one_scenario(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    def night(*given: Any) -> dict[str, Any]:
        asked.append(given)
        return {"published": pd.DataFrame({"rank": [1]})}

    monkeypatch.setattr(night_quality, "night", night)
    config = load(CONF)
    found = night_transfer.alone_night(CONF, ("seed=0",), config, tmp_path, date(2011, 9, 1), "Channel Islands")
    assert found is not None and len(found) == 1
    [(yaml, sets, folder, run_date, seed)] = asked
    assert (yaml, folder, run_date, seed) == (CONF, tmp_path / "Channel-Islands", date(2011, 9, 1), 0)
    where = json.loads(sets[1].removeprefix("source.interactions.where="))
    assert where.endswith(f"({config.source.interactions.scenario}) = 'Channel Islands'")
    assert load(CONF, sets).source.interactions.where == where


def test_a_scenario_too_small_for_a_night_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def night(*_: Any) -> dict[str, Any]:
        calls.append(1)
        raise ConfigError("exit code 2: no closed window")

    monkeypatch.setattr(night_quality, "night", night)
    for _ in range(2):
        assert night_transfer.alone_night(CONF, (), load(CONF), tmp_path, date(2011, 9, 1), "Malta") is None
    assert len(calls) == 1 and "no closed window" in (tmp_path / "Malta" / "2011-09-01.refused").read_text()


def test_the_report_pools_poor_scenarios(capsys: pytest.CaptureFixture[str]) -> None:
    """100 lists of the rich one gain nothing, two of the poor one .2 each."""
    rows = [("2020-01-01", "rich", f"u{n}", 0.3, 0.3, 0.1) for n in range(100)]
    rows += [("2020-01-01", "poor", f"v{n}", 0.5, 0.3, 0.4) for n in range(2)]
    names = ["run_date", "scenario", "user_id", "joint", "alone", night_transfer.RIVAL]
    found = night_transfer.report(pd.DataFrame(rows, columns=names))["scenarios"]
    assert found["(poor)"]["lists"] == 2 and found["(poor)"]["over alone"] == [0.2, 0.2, 0.2]
    assert found["rich"]["over alone"] == [0.0, 0.0, 0.0] and found["(all)"]["joint"] == round(31 / 102, 4)
    assert "(poor)" in capsys.readouterr().out
