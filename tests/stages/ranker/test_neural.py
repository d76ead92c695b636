"""Which rankers a night trains, and on which windows. No Spark, no training."""

from datetime import date, timedelta
from pathlib import Path

from recspark import model_folder
from recspark.stages.ranker import neural
from recspark.stages.ranker.examples import Examples
from recspark.training.ranking.job import Window
from recspark.windows import as_of_day
from tests.stages import hand_made

NEW, OLD = (Window(day, (f"{day}.parquet",), f"histories-{day}", f"bundle-{day}") for day in (28, 0))


def models(windows: tuple[Window, ...], *transfer: str, folder: Path) -> list[tuple]:
    config = hand_made.config(folder, ranker={"transfer": ["joint", *transfer]})
    found = neural._models(config, windows, windows[1:], "run")
    return [(one.name, one.folder, one.windows, one.epochs_of, one.mode, one.target) for one in found]


def test_the_evaluated_ranker_does_not_see_its_test_window(tmp_path: Path) -> None:
    model_folder.save(f"{tmp_path}/bundle", {"scenarios": {"DE": 2, "FR": 0, "BE": 0}})
    newest = Window(28, NEW.files, NEW.histories, f"{tmp_path}/bundle")
    both, older = (newest, OLD), (OLD,)
    assert models(both, "alone", folder=tmp_path) == [
        ("evaluated", "run/evaluated/ranker", older, None, "joint", None),
        ("published", "run/published/ranker", both, "evaluated", "joint", None),
        ("evaluated/ranker_alone/0", "run/evaluated/ranker_alone/0", older, None, "alone", 0),
        ("published/ranker_alone/0", "run/published/ranker_alone/0", both, "evaluated/ranker_alone/0", "alone", 0),
        ("evaluated/ranker_alone/2", "run/evaluated/ranker_alone/2", older, None, "alone", 2),
        ("published/ranker_alone/2", "run/published/ranker_alone/2", both, "evaluated/ranker_alone/2", "alone", 2),
    ]
    # with one window there is nothing to evaluate on: the published one stops early by itself
    assert models((newest,), folder=tmp_path) == [("published", "run/published/ranker", (newest,), None, "joint", None)]


def test_the_evaluated_ranker_sees_none_of_the_windows_that_modes_are_judged_on(tmp_path: Path) -> None:
    """Five windows, two of which judge; a copy learns from the newest ones with 250 examples at most."""
    days = [date(2024, 3, 4) - timedelta(days=28 * n) for n in range(5)]
    examples = [Examples(day, "f", (f"{day}.parquet",), f"b-{day}", 100) for day in days]
    histories = {day: f"h-{day}" for day in days}
    judging = {"model_metrics": {"num_windows": 2}}
    for max_rows, published, evaluated in (
        (10_000, days, days[2:]),
        (250, days[:2], days[2:4]),
        (1, days[:1], days[2:3]),
    ):
        config = hand_made.config(tmp_path, ranker={"max_rows": max_rows}, **judging)
        found = neural.windows_of(config, examples, histories)
        assert [[window.day for window in part] for part in found] == [
            [as_of_day(day) for day in part] for part in (published, evaluated)
        ]
    config = hand_made.config(tmp_path, **judging)
    assert neural.windows_of(config, examples[:1], histories)[1] == ()  # nothing older: no evaluated copy
