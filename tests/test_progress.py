"""What counts as progress of a run: a finished task of Spark, or a line that a training prints."""

import contextlib
import io
import threading
from typing import Any

import pytest

from recspark import progress


def test_a_finished_task_and_a_printed_line_are_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOOK_S", 0.01)
    tasks, moved, out = 0, threading.Event(), io.StringIO()
    monkeypatch.setattr(progress, "finished_tasks", lambda spark: tasks)

    def moves() -> bool:
        moved.clear()
        return moved.wait(0.2)

    with contextlib.redirect_stdout(out), progress.watch(None, moved.set):  # type: ignore[arg-type]
        assert not moves()
        tasks = 1
        assert moves()
        assert not moves()
        print("epoch 1/8")
        assert moves()
        assert not moves()
    assert out.getvalue() == "epoch 1/8\n"


def test_tasks_of_spark_are_counted(spark: Any) -> None:
    before = progress.finished_tasks(spark)
    spark.range(10, numPartitions=3).rdd.count()
    spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
    assert progress.finished_tasks(spark) - before == 3


def test_a_session_that_does_not_say_has_no_tasks() -> None:
    assert progress.finished_tasks(object()) == 0  # type: ignore[arg-type]
