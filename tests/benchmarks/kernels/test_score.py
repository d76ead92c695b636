import pytest
from pyspark.sql import SparkSession

from benchmarks.kernels import score


@pytest.mark.slow
def test_a_small_run_gives_equal_scores_and_all_figures(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "MODELS", ("single",))  # the other one takes the same path
    found = score.run("", 1, quick=True)
    for model in score.MODELS:
        assert found[f"{model} largest gap"] < 1e-6
        assert found[f"{model} over udf"] > 0 and found[f"{model} over bare"] > 0
    assert found["rows"] == score.BLOCK * score.LIST
