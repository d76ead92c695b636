"""Whole commands on input that is small or odd: each ends in a night, or in one line that says what to do."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

FIRST = datetime(2024, 1, 1, 9)  # a Monday
SETTINGS = (
    "source.interactions={format: parquet, paths: [%s], scenario: page, user_id: who, item_id: what, event_time: at}",
    "source.items={format: parquet, paths: [%s], item_id: what, text: name, event_time: at}",
    "interactions={unknown_items: reject}",
    "training_examples={label_days: 7, num_windows: 2}",
    "recommendations.k=3",
    "candidates.depth=5",
    "gbdt.max_rounds=5",
    "ranker.max_epochs=1",
)


def deliver(path: Path, days: int, **changes: Any) -> None:
    """`days` days of a shop with 12 users and 10 items, of which item 9 has no text; `alone` has one user."""
    rows = [
        ("alone" if user == 0 else "shop", f"u{user}", f"i{(user + day * 3 + n) % 10}", FIRST + timedelta(days=day))
        for day in range(days)
        for user in range(12)
        for n in range(2)
    ]
    frame = pd.DataFrame(rows, columns=["page", "who", "what", "at"])
    frame["name"] = frame["what"].map(lambda what: None if what == "i9" else f"thing number {what[1:]}")
    frame.assign(**changes).to_parquet(path, index=False, coerce_timestamps="us")


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd") / "warehouse"


@pytest.fixture(scope="module")
def run(nightly: Callable[..., Any], warehouse: Path) -> Callable[..., Any]:
    """A night on the file `raw`; all in one warehouse."""

    def once(raw: Path, run_date: str, *overrides: str, **options: Any) -> Any:
        chosen = [setting % raw if "%s" in setting else setting for setting in SETTINGS]
        return nightly(warehouse, *chosen, *overrides, run_date=run_date, **options)

    return once


def test_all_events_on_one_day_leave_nothing_to_learn_from(run: Callable[..., Any], tmp_path: Path) -> None:
    deliver(tmp_path / "raw.parquet", days=1)
    night = run(tmp_path / "raw.parquet", "2024-01-02", "source.items=null", "interactions={}")
    assert night.code == 2, night.stderr[-2000:]
    error = next(line for line in night.stderr.splitlines() if line.startswith("error:"))
    assert "no closed window before 2024-01-02" in error and "history of more than 7 days" in error


def test_one_user_in_a_scenario_and_an_item_without_text(
    run: Callable[..., Any], spark: Any, warehouse: Path, tmp_path: Path
) -> None:
    deliver(tmp_path / "raw.parquet", days=30)
    night = run(tmp_path / "raw.parquet", "2024-01-31")
    assert night.code == 0, night.stderr[-3000:]
    lists = spark.read.format("delta").load(f"{warehouse}/recommendations")
    found = {
        row.user_id: row["count"] for row in lists.where("scenario = 'alone'").groupBy("user_id").count().collect()
    }
    assert found == {"u0": 3, "__default__": 3}
    assert spark.read.format("delta").load(f"{warehouse}/items").where("text IS NULL").count() == 1


def test_a_raw_table_that_changes_its_types_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    deliver(tmp_path / "raw.parquet", days=30, who=1.5)
    night = run(tmp_path / "raw.parquet", "2024-02-01", only="interactions")
    assert night.code == 2
    assert "source.interactions.user_id: `who` is of type double" in night.stderr
    assert night.result["status"] == "failed"
