import numpy as np
import pytest
from pyspark.sql import SparkSession

from benchmarks.kernels import metrics as board


@pytest.mark.slow
def test_a_small_run_agrees_with_numpy_and_with_mllib(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPLAY_PYTHON", raising=False)
    found = board.run("", 1, quick=True)
    assert found["peer"] == "mllib" and found["largest_gap_to_numpy"] < 1e-12
    assert found["largest_gap_of_the_peer"] < 1e-9  # of the metrics that MLlib has


def test_no_user_has_an_item_twice() -> None:
    made = board.world(50, 3000, 1009)
    for user in range(50):
        mine = made.item[made.offsets[user] : made.offsets[user + 1]]
        assert len(np.unique(mine)) == len(mine) and len(np.unique(made.lists[user])) == board.LIST
        assert np.isin(made.lists[user], mine).any() or len(mine) == board.KNOWN
