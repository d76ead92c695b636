"""Whole commands on planted input: a night whose lists are right by construction, and what is small or odd ends in one
line that says what to do."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import functions as F

from tests.encoders import tiny
from tests.nights import RunNight

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
TASTES, EACH, WITHHELD = {"r": "red lamp", "g": "green mug"}, 12, 2  # items r0 to r11 and g0 to g11


def shop_events(days: int) -> list[tuple[str, str, str, datetime]]:
    """12 users and 10 items; `alone` has one user."""
    return [
        ("alone" if user == 0 else "shop", f"u{user}", f"i{(user + day * 3 + n) % 10}", FIRST + timedelta(days=day))
        for day in range(days)
        for user in range(12)
        for n in range(2)
    ]


def garden_events(days: int) -> list[tuple[str, str, str, datetime]]:
    """60 users of each of two tastes that share no item: a user takes, over the days, all items of the taste but 2."""
    rng = np.random.default_rng(0)
    return [
        ("garden", f"{taste}{user}", f"{taste}{item}", FIRST + timedelta(days=int(days * at / (EACH - WITHHELD))))
        for taste in TASTES
        for user in range(60)
        for at, item in enumerate(rng.permutation(EACH)[WITHHELD:])
    ]


def deliver(path: Path, rows: list[tuple[str, str, str, datetime]], **changes: Any) -> None:
    """The raw file: item i9 has no text."""
    frame = pd.DataFrame(rows, columns=["page", "who", "what", "at"])
    texts = {"i": "thing number", **TASTES}
    frame["name"] = frame["what"].map(lambda what: None if what == "i9" else f"{texts[what[0]]} {what[1:]}")
    frame.assign(**changes).to_parquet(path, index=False, coerce_timestamps="us")


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("odd") / "warehouse"


@pytest.fixture(scope="module")
def run(run_night: RunNight, warehouse: Path) -> Callable[..., Any]:
    """A night on the file `raw`; all in one warehouse, with an encoder that knows the tastes' words."""
    encoder = f"item_embeddings.encoder={tiny.build('bert', warehouse.parent / 'tiny')}"

    def once(raw: Path, run_date: str, *overrides: str, **options: Any) -> Any:
        chosen = [setting % raw if "%s" in setting else setting for setting in SETTINGS]
        return run_night(warehouse, *chosen, encoder, *overrides, run_date=run_date, **options)

    return once


def test_all_events_on_one_day_leave_nothing_to_learn_from(run: Callable[..., Any], tmp_path: Path) -> None:
    deliver(tmp_path / "raw.parquet", shop_events(days=1))
    night = run(tmp_path / "raw.parquet", "2024-01-02", "source.items=null", "interactions={}")
    assert night.code == 2, night.stderr[-2000:]
    error = next(line for line in night.stderr.splitlines() if line.startswith("error:"))
    assert "no closed window before 2024-01-02" in error and "history of more than 7 days" in error


@pytest.fixture(scope="module")
def shop(run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw file of a finished night, in which the shop has business rules."""
    raw = tmp_path_factory.mktemp("raw") / "raw.parquet"
    deliver(raw, shop_events(days=30) + garden_events(days=30))
    rule = f"{{items: own, where: item_id <> 'i3', at_most: {{items: 1, of: '{KIND}'}}}}"
    night = run(raw, "2024-01-31", f"scenarios.overrides.shop={rule}")
    assert night.code == 0, night.stderr[-3000:]
    return raw


def test_the_published_order_beats_chance_and_popularity(spark: Any, warehouse: Path, shop: Path) -> None:
    """The right items of a user are the two of the taste that she has not taken. Both tastes are equally popular, so
    popularity and a random order of the same candidates find few of them in three places."""

    def rows(noun: str, condition: str = "true") -> pd.DataFrame:
        return spark.read.format("delta").load(f"{warehouse}/{noun}").where(condition).toPandas()

    lists = rows("recommendations", "scenario = 'garden' AND user_id <> '__default__'")
    offered = rows("candidates", "scenario = 'garden' AND as_of = '2024-01-31' AND user_idx >= 0")
    offered = offered.merge(rows("user_index"), on="user_idx").merge(rows("item_index"), on="item_idx")
    taken = rows("interactions", "scenario = 'garden'").groupby("user_id")["item_id"].agg(set)
    listed, candidates = lists.groupby("user_id")["item_id"].agg(set), dict(list(offered.groupby("user_id")))
    found: dict[str, list[float]] = {"published": [], "popular": [], "random": []}
    for user, had in taken.items():
        right = {f"{user[0]}{n}" for n in range(EACH)} - had
        mine = candidates[user].sort_values(["popular_score", "item_id"], ascending=[False, True])["item_id"]
        found["published"].append(len(right & listed[user]) / WITHHELD)
        found["popular"].append(len(right & set(mine[:3])) / WITHHELD)
        found["random"].append(3 * len(right & set(mine)) / len(mine) / WITHHELD)  # expected
    recall = {name: float(np.mean(values)) for name, values in found.items()}
    assert len(taken) == len(listed) == 120
    assert recall["published"] > 0.9, recall
    assert recall["published"] > recall["random"] + 0.2 and recall["published"] > recall["popular"] + 0.2, recall


def test_one_user_in_a_scenario_and_an_item_without_text(spark: Any, warehouse: Path, shop: Path) -> None:
    lists = spark.read.format("delta").load(f"{warehouse}/recommendations")
    found = {
        row.user_id: row["count"] for row in lists.where("scenario = 'alone'").groupBy("user_id").count().collect()
    }
    assert found == {"u0": 3, "__default__": 3}
    assert spark.read.format("delta").load(f"{warehouse}/items").where("text IS NULL").count() == 1


def test_the_rules_of_a_scenario_hold(spark: Any, warehouse: Path, shop: Path) -> None:
    """Nine items of three kinds, at most one of a kind in a list: every list of three has all kinds, also if the user
    has seen every item, so that the list consists of repeats."""
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
    deliver(tmp_path / "raw.parquet", shop_events(days=30), who=1.5)
    night = run(tmp_path / "raw.parquet", "2024-02-01", only="interactions")
    assert night.code == 2
    assert "source.interactions.user_id: `who` is of type double" in night.stderr
    assert night.result["status"] == "failed"
