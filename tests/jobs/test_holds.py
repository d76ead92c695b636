"""A night whose delivery is unlike the one before, by the command line: held, held again, accepted once."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from recspark import cli

STAGES = ("interactions", "items", "night_statistics")
YAML = """
warehouse: {folder}/warehouse
source:
  interactions: {{format: csv, paths: ["{folder}/events.csv"], options: {{header: "true"}}, scenario: shop,
    user_id: who, item_id: what, event_time: at, value: price}}
"""
FIRST, DAYS, A_DAY = datetime(2024, 1, 1), 70, 60
BELGIUM = "be"


def deliver(folder: Path, days: int, without: str = "") -> None:
    """60 events of 30 users each day, a third of them in each of three shops; without those of one shop."""
    rows = [
        (("de", "fr", BELGIUM)[n % 3], n % 30, (7 * n + day) % 25, FIRST + timedelta(days=day, minutes=20 * n), n % 9)
        for day in range(days)
        for n in range(A_DAY)
    ]
    text = "\n".join(f"{shop},u{user},i{item},{at},{price}" for shop, user, item, at, price in rows if shop != without)
    (folder / "events.csv").write_text(f"shop,who,what,at,price\n{text}\n")


def night(folder: Path, day: int, capsys: Any, accept: bool = False) -> tuple[int, str, dict[str, Any]]:
    """(exit code, last line of standard error, the summary) of the first stages of the night after so many days."""
    (folder / "shop.yaml").write_text(YAML.format(folder=folder))
    run_date = str((FIRST + timedelta(days=day)).date())
    code = cli.run(STAGES, f"{folder}/shop.yaml", run_date, accept=accept)
    captured = capsys.readouterr()
    return code, captured.err.splitlines()[-1], json.loads(captured.out.splitlines()[-1])


def test_a_scenario_that_left_the_source_holds_the_night(spark: Any, tmp_path: Path, capsys: Any) -> None:
    """20 of 60 rows of each of 70 days are gone, all of Belgium."""
    deliver(tmp_path, DAYS)
    code, _, said = night(tmp_path, DAYS, capsys)
    assert code == 0 and "first night" in said["stages"]["night_statistics"]["note"]
    deliver(tmp_path, DAYS + 1, without=BELGIUM)
    for _ in range(2):  # the same delivery again is held again
        code, line, said = night(tmp_path, DAYS + 1, capsys)
        assert (code, said["status"]) == (3, "held")
        assert f"past rows, {BELGIUM}: 1,400 added or removed; 1,400 before" in line and "--accept" in line
        assert line == f"error: {said['error']}"
    runs = spark.read.format("delta").load(f"{tmp_path}/warehouse/published_runs").collect()
    assert [row.status for row in runs] == ["held", "held"] and all(BELGIUM in row.reason for row in runs)

    code, _, said = night(tmp_path, DAYS + 1, capsys, accept=True)
    assert code == 0 and said["stages"]["night_statistics"]["note"].startswith("accepted: ")


def test_a_night_is_taken_back_by_the_command_line(spark: Any, tmp_path: Path, capsys: Any) -> None:
    """A date without lists is one line; what is taken back is in tests/stages/test_recommendations.py."""
    deliver(tmp_path, 30)
    assert night(tmp_path, 30, capsys)[0] == 0
    code = cli.run(("unpublish",), f"{tmp_path}/shop.yaml", "2024-01-30")
    captured = capsys.readouterr()
    assert code == 2 and captured.err.splitlines()[-1].startswith("error: table")
    assert "recommendations does not exist" in captured.err.splitlines()[-1]
