"""The timed training of the product, and the bare loop that it is compared with, on planted rows."""

import queue
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kernels import bare_loop, train
from recspark.training.ranking import loop
from recspark.training.ranking.job import RankerModel
from tests.training import planted


def test_every_step_is_noted_and_the_loop_is_restored(tmp_path: Path) -> None:
    real = loop._step
    job = planted.job((RankerModel("ranker", f"{tmp_path}/model", (planted.window(tmp_path),)),), max_epochs=2)
    began = time.monotonic()
    answer = train.timed(job)
    assert loop._step is real
    assert len(answer["times"]) == answer["models"]["ranker"]["steps"] == 22  # 11 an epoch
    assert began < answer["times"][0] and answer["times"] == sorted(answer["times"])


def test_the_rate_of_the_bare_loop_is_rows_over_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop really runs; its time is replaced by 2 seconds."""
    timed: list[int] = []

    def two_seconds(model: Any, ready: Any, steps: int, *rest: Any) -> float:
        assert real(model, ready, steps, *rest) > 0
        timed.append(steps)
        return 2.0

    real = bare_loop.seconds
    monkeypatch.setattr(bare_loop, "seconds", two_seconds)
    job = planted.job((RankerModel("ranker", f"{tmp_path}/model", (planted.window(tmp_path),)),), batch_size=None)
    answers: queue.Queue[float] = queue.Queue()
    train.bare(job, 1, answers)
    assert answers.get_nowait() == timed[0] * train.batch_size(2700) / 2.0  # 2,700 of 3,000 rows are not for stopping
