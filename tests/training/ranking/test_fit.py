"""Which rows a ranker learns from and stops by."""

import numpy as np

from recspark.training.feed.files import rows_that_count
from recspark.training.ranking import fit
from recspark.training.ranking.job import RankerModel

ROWS = {"fold": np.arange(20) % 10, "scenario_idx": np.arange(20) // 10}  # row n: fold n % 10; rows 0 to 9: scenario 0


def chosen(model: RankerModel, part: str, stops: bool | None) -> list[int]:
    return np.flatnonzero(rows_that_count(fit.row_filters(model, part, stops), ROWS)).tolist()


def test_the_users_that_stop_a_training_are_not_trained_on() -> None:
    """Those of fold 0: rows 0 and 10."""
    model = RankerModel("evaluated", "folder", ())
    assert chosen(model, "all", stops=True) == [0, 10]
    assert chosen(model, "all", stops=False) == [n for n in range(20) if n % 10]
    assert fit.row_filters(model, "all", stops=None) == ()


def test_parts_are_the_targets_rows_and_those_of_the_others() -> None:
    model = RankerModel("evaluated", "folder", (), mode="finetune", target=1)
    assert chosen(model, "own", stops=True) == [10] and chosen(model, "sources", stops=True) == [0]
    assert chosen(model, "own", stops=None) == list(range(10, 20))
    assert chosen(model, "all", stops=True) == [0, 10]
