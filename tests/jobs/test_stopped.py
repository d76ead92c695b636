"""A run that is told to end: one line, a lease that is free, a row, and Java ended before the lease is given back."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recspark import cli, pipeline
from recspark.session import ended_when_stopped
from recspark.warehouse import lease, stage_log
from tests.jobs.planted_events import write

# `recspark` with a stage that never ends, in a task of Spark
ENDLESS = """
import sys, time
from recspark.stages import interactions
def refresh(store, config, run_date, force=False):
    def sleep(batches):
        print("the task runs", file=sys.stderr, flush=True)
        time.sleep(600)
        yield from batches
    store.spark.range(1).mapInArrow(sleep, "id long").collect()
interactions.refresh = refresh
from recspark.__main__ import main
main()
"""


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has just ended
            continue
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


def test_sigterm_ends_a_run_in_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    command = [sys.executable, "-c", ENDLESS, "stage", "interactions", "--config", f"{tmp_path}/shop.yaml"]
    errors = tmp_path / "errors.log"
    with errors.open("wb") as to:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=to, text=True, start_new_session=True)
        try:
            for _ in range(1200):
                if "the task runs" in errors.read_text() or run.poll() is not None:
                    break
                time.sleep(0.1)
            java = children(run.pid)
            assert java, errors.read_text()[-2000:]
            run.send_signal(signal.SIGTERM)  # to Python alone, as a container does it
            out, _ = run.communicate(timeout=60)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 143
    assert errors.read_text().splitlines()[-1] == "error: stopped by SIGTERM; the same command goes on"
    said = json.loads(out)
    assert (said["status"], said["exit_code"]) == ("killed", 143)
    assert not [pid for pid in java if Path(f"/proc/{pid}").exists()]
    held = lease.leases(*_newest(tmp_path))
    assert [one.ended for one in held] == [True]
    (row,) = stage_log.read(f"{tmp_path}/warehouse")
    assert (row.stage, row.status, row.error) == ("interactions", "killed", "stopped by SIGTERM")
    assert row.ended_at is not None


def _newest(folder: Path) -> tuple[Any, int]:
    place = lease.open_folder(f"{folder}/warehouse", lease.FOLDER)
    return place, place.newest()


def test_a_session_that_is_not_ours_only_ends_its_jobs(spark: Any) -> None:
    """A notebook's goes on: its job is cancelled, and it answers."""
    failed = []

    def long() -> None:
        try:
            spark.range(1).mapInArrow(lambda batches: time.sleep(60) or batches, "id long").collect()
        except Exception as error:
            failed.append(str(error))

    job = threading.Thread(target=long)
    job.start()
    while not spark.sparkContext.statusTracker().getActiveJobsIds():
        time.sleep(0.05)
    with pytest.raises(KeyboardInterrupt), ended_when_stopped(spark, owned=False):
        raise KeyboardInterrupt
    job.join(timeout=30)
    assert failed and "cancel" in failed[0].lower()
    assert spark.range(3).count() == 3


def test_java_of_our_own_is_ended_before_the_block_is_left() -> None:
    """So before the lease is given back. After an error of another kind, rows are still to be written with it."""
    ended: list[str] = []
    java = SimpleNamespace(kill=lambda: ended.append("kill"), wait=lambda: ended.append("wait"))
    session: Any = SimpleNamespace(sparkContext=SimpleNamespace(_gateway=SimpleNamespace(proc=java)))
    with pytest.raises(ValueError, match="x"), ended_when_stopped(session, owned=True):
        raise ValueError("x")
    assert ended == []
    with pytest.raises(KeyboardInterrupt), ended_when_stopped(session, owned=True):
        raise KeyboardInterrupt
    assert ended == ["kill", "wait"]


def test_ctrl_c_has_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    write(tmp_path)
    monkeypatch.setattr(pipeline, "execute", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.run(("items",), f"{tmp_path}/shop.yaml") == 130
    assert json.loads(capsys.readouterr().out)["error"] == "stopped by SIGINT; the same command goes on"
    assert signal.getsignal(signal.SIGTERM) is before
