"""Whole commands on input that is small or odd: each ends in a night, or in one line that says what to do."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import functions as F

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


KIND = "CAST(substr(item_id, 2) AS INT) % 3"  # i0, i3, i6, i9 are 0


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


@pytest.fixture(scope="module")
def shop(run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw file of a finished night, in which the shop has business rules."""
    raw = tmp_path_factory.mktemp("raw") / "raw.parquet"
    deliver(raw, days=30)
    rule = f"{{where: item_id <> 'i3', at_most: {{items: 1, of: '{KIND}'}}}}"
    night = run(raw, "2024-01-31", f"scenarios.overrides.shop={rule}")
    assert night.code == 0, night.stderr[-3000:]
    return raw


def test_one_user_in_a_scenario_and_an_item_without_text(spark: Any, warehouse: Path, shop: Path) -> None:
    lists = spark.read.format("delta").load(f"{warehouse}/recommendations")
    found = {
        row.user_id: row["count"] for row in lists.where("scenario = 'alone'").groupBy("user_id").count().collect()
    }
    assert found == {"u0": 3, "__default__": 3}
    assert spark.read.format("delta").load(f"{warehouse}/items").where("text IS NULL").count() == 1


def test_the_rules_of_a_scenario_hold(spark: Any, warehouse: Path, shop: Path) -> None:
    """Nine items of three kinds, one of a kind in a list: all three kinds are in every list of three, also where the
    user had everything, so that the list is made of repeats."""
    lists = spark.read.format("delta").load(f"{warehouse}/recommendations").where("scenario = 'shop'")
    kinds = lists.groupBy("user_id").agg(F.sort_array(F.collect_list(F.expr(KIND))).alias("kinds"))
    users = [*(f"u{n}" for n in range(1, 12)), "__default__"]
    assert {row.user_id: row.kinds for row in kinds.collect()} == {user: [0, 1, 2] for user in users}
    assert lists.where("item_id = 'i3'").count() == 0
    assert lists.where("user_id = 'u1' AND source <> 'repeat'").count() == 0


def test_a_wrong_rule_is_one_line(run: Callable[..., Any], warehouse: Path, shop: Path) -> None:
    """Found before anything is built."""
    bad = run(shop, "2024-01-31", "scenarios.overrides.shop.where=attribute['stock'] > 0", only="retriever")
    assert bad.code == 2, bad.stderr[-2000:]
    (error,) = (line for line in bad.stderr.splitlines() if line.startswith("error:"))
    assert (
        "scenarios.overrides.shop.where: column attribute is not in the table items; did you mean attributes" in error
    )
    assert "Traceback" not in bad.stderr


def test_a_raw_table_that_changes_its_types_is_refused(run: Callable[..., Any], tmp_path: Path) -> None:
    deliver(tmp_path / "raw.parquet", days=30, who=1.5)
    night = run(tmp_path / "raw.parquet", "2024-02-01", only="interactions")
    assert night.code == 2
    assert "source.interactions.user_id: `who` is of type double" in night.stderr
    assert night.result["status"] == "failed"
