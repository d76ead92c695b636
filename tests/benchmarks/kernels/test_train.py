"""The product's training as it is timed, and the bare loop beside it, on planted rows."""

import queue
import time
from pathlib import Path

from benchmarks.kernels import train
from recspark.training.ranking import loop
from recspark.training.ranking.job import Model
from tests.training import planted


def test_every_step_is_noted_and_the_loop_left_as_it_was(tmp_path: Path) -> None:
    real = loop._step
    job = planted.job((Model("ranker", f"{tmp_path}/model", (planted.window(tmp_path),)),), max_epochs=2)
    began = time.monotonic()
    answer = train.timed(job.to_json())
    assert loop._step is real
    assert len(answer["times"]) == answer["models"]["ranker"]["steps"] == 22  # 11 an epoch
    assert began < answer["times"][0] and answer["times"] == sorted(answer["times"])


def test_the_bare_loop_has_a_rate(tmp_path: Path) -> None:
    job = planted.job((Model("ranker", f"{tmp_path}/model", (planted.window(tmp_path),)),), batch_size=None)
    told: queue.Queue = queue.Queue()
    train.bare(job.to_json(), 1, told)
    assert 0 < told.get_nowait() < 1e9
