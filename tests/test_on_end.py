"""The command that is told how a run ended, whatever it does itself."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from recspark import cli, on_end, pipeline
from recspark.errors import PublishError
from tests.jobs.planted_events import write


def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(on_end.log, "warning", lambda text, *values: lines.append(text % values))
    return lines


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "done", 0),
        (PublishError("unlike"), "held", 3),
        (ValueError("x"), "failed", 1),
        (KeyboardInterrupt(), "killed", 130),
    ],
)
def test_it_gets_the_summary_however_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, error: BaseException | None, status: str, code: int
) -> None:
    def execute(*_: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(pipeline, "execute", execute)
    write(tmp_path, f"on_end: cat > {tmp_path}/told.json\n")
    assert cli.run(("items",), f"{tmp_path}/shop.yaml") == code
    printed = capsys.readouterr()
    (told,) = (tmp_path / "told.json").read_text().splitlines()
    assert told == printed.out.rstrip() and json.loads(told)["status"] == status
    if code:
        assert printed.err.splitlines()[-1] == f"error: {json.loads(told)['error']}"


def test_its_failure_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = warnings(monkeypatch)
    on_end.tell("cat > /dev/null; echo first >&2; echo no such host >&2; exit 6", "{}")
    on_end.tell("exit 7", "{}" * 100_000)  # it does not read what it is told
    on_end.tell("true", "{}")
    assert lines == ["on_end: exit code 6: no such host", "on_end: exit code 7: "]


def test_it_is_ended_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines, began = warnings(monkeypatch), time.monotonic()
    on_end.tell(f"(sleep 2; touch {tmp_path}/late) & sleep 30", "{}", limit_s=1.0)
    assert time.monotonic() - began < 2 and lines == ["on_end: ended after 1 s without an answer"]
    time.sleep(2.2 - (time.monotonic() - began))
    assert not (tmp_path / "late").exists()
