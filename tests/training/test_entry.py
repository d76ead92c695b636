"""What a process of a launch runs: named functions, and errors for people as values."""

from pathlib import Path

import pytest

from recspark.errors import DataError
from recspark.training import entry
from recspark.training.ranking.job import TRAINER, RankerModel
from tests.training import planted


def double(job: int) -> dict[str, int]:
    if job < 0:
        raise DataError(f"found {job}, expected at least 0")
    return {"answer": 2 * job}


def test_a_function_is_passed_or_named() -> None:
    assert entry.run(double, 4) == entry.run(f"{__name__}:double", 4) == {"answer": 8}


def test_an_error_for_people_comes_back_as_a_value() -> None:
    assert entry.run(double, -1) == {"error": "found -1, expected at least 0"}


def test_any_other_error_ends_the_process() -> None:
    with pytest.raises(TypeError):
        entry.run(double, "x")


def test_errors_of_a_training_come_back_as_values(tmp_path: Path) -> None:
    window = planted.window(tmp_path)
    gone = planted.Window(window.day, ("/nowhere/part.parquet",), window.histories, window.bundle)
    answer = entry.run(TRAINER, planted.job((RankerModel("evaluated", f"{tmp_path}/model", (gone,)),)))
    assert "/nowhere/part.parquet is gone" in answer["error"]
