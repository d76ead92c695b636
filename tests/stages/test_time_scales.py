"""Which time-scales a night chooses, on planted events and by hand."""

from datetime import date, datetime, timedelta

import numpy as np
import pytest
import scipy.sparse as sp
from pyspark.sql import functions as F

from recspark.config.schema import Config
from recspark.models.retrievers import popular
from recspark.stages import time_scales
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.warehouse.store import Store
from tests import world

MONDAY = date(2024, 3, 4)
KEY = ["scenario", "user_id", "item_id"]


def config_of(warehouse: object, **sections: object) -> Config:
    return Config(warehouse=str(warehouse), source={"interactions": world.SOURCE}, **sections)


def fading(days: int = 200, users: int = 30) -> list[tuple[str, str, str, int]]:
    """(scenario, user, item, day before MONDAY): every day each user buys the item of the week, and never the same item
    twice in a week; what was sold a month ago is sold no more."""
    return [("s", f"u{user}", f"week-{day // 7}-{user % 3}", day) for day in range(1, days) for user in range(users)]


def lasting(days: int = 400, users: int = 60) -> list[tuple[str, str, str, int]]:
    """One item is bought for the first time by every user some day; each week another item has a short burst."""
    rows = []
    for user in range(users):
        rows += [("s", f"u{user}", "start", days), ("s", f"u{user}", "classic", 1 + (user * 13) % (days - 2))]
    for day in range(1, days, 7):
        rows += [("s", f"u{user}", f"burst-{day}", day + 1) for user in range(10)]
    return rows


def store_of(spark, folder, rows) -> tuple[Store, Config]:
    config = config_of(folder)
    store = Store(spark, config, "run")
    events = [
        (
            s,
            u,
            i,
            datetime.combine(MONDAY - timedelta(days=n), datetime.min.time()),
            "buy",
            None,
            None,
            MONDAY - timedelta(days=n),
        )
        for s, u, i, n in sorted(set(rows))
    ]
    store.replace(INTERACTIONS, spark.createDataFrame(events, INTERACTIONS.ddl), metadata={"fingerprint": "x"})
    return store, config


def test_popularity_fades_where_items_come_and_go(spark, tmp_path) -> None:
    store, config = store_of(spark, tmp_path / "w", fading())
    found = time_scales.measure(store, config, MONDAY)
    assert found["chosen"][time_scales.HALF_LIFE] <= 14 and "popularity halves" in found["note"]


def test_popularity_lasts_where_a_classic_is_what_people_buy(spark, tmp_path) -> None:
    store, config = store_of(spark, tmp_path / "w", lasting())
    assert time_scales.measure(store, config, MONDAY)["chosen"][time_scales.HALF_LIFE] >= 56


def test_a_night_fills_in_what_the_yaml_leaves_out_and_keeps_it_for_a_week(spark, tmp_path, monkeypatch) -> None:
    store, config = store_of(spark, tmp_path / "w", fading())
    named = config_of(
        tmp_path / "w", training_examples={"num_windows": 2}, retriever={"popular": {"half_life_days": 3.0}}
    )
    settled = time_scales.settle(store, named, MONDAY)
    assert settled.training_examples.num_windows == 2 and settled.retriever.popular.half_life_days == 3.0
    assert settled.training_examples.label_days in time_scales.LABEL_DAYS
    every = time_scales.settle(store, config, MONDAY)
    assert every.retriever.popular.half_life_days <= 14
    assert time_scales.settle(store, every, MONDAY) is every  # nothing is left open
    monkeypatch.setattr(time_scales, "measure", None)  # the rest of the week measures nothing
    assert time_scales.settle(store, config, MONDAY + timedelta(days=6)) == every
    with pytest.raises(TypeError):
        time_scales.settle(store, config, MONDAY + timedelta(days=7))


def test_the_stage_says_what_it_chose_once_a_week(spark, tmp_path) -> None:
    store, config = store_of(spark, tmp_path / "w", fading())
    first, again = (time_scales.refresh(store, config, MONDAY + timedelta(days=n)) for n in (0, 6))
    assert (first.skipped, again.skipped) == (False, True)
    assert "popularity halves in" in first.note and again.note == first.note
    assert not time_scales.refresh(store, config, MONDAY, force=True).skipped
    named = time_scales.settle(store, config, MONDAY)
    assert time_scales.refresh(store, named, MONDAY).note == "all named in the YAML"
    nothing = config_of(tmp_path / "none")
    assert time_scales.refresh(Store(spark, nothing, "run"), nothing, MONDAY).note == "no event"


def test_without_events_the_defaults_stay(spark, tmp_path) -> None:
    config = config_of(tmp_path / "none")
    assert time_scales.settle(Store(spark, config, "run"), config, MONDAY) is config


def test_lists_are_those_of_known_users_with_something_new(spark) -> None:
    """Windows of 7 days before 2024-03-04. u1 is new on day 1 of the newest window in two items: one list. u2 started
    within the older window, so it counts in none; u3 counts in the older one; u4's window is not asked for; u5 had
    seen its item before the window."""
    day = [MONDAY - timedelta(days=n) for n in range(40)]
    rows = [
        ("u1", day[7], day[30]),
        ("u1", day[1], day[30]),
        ("u2", day[9], day[12]),
        ("u3", day[14], day[20]),
        ("u4", day[15], day[20]),
        ("u5", day[1], day[20]),
    ]
    new = spark.createDataFrame(
        [("s", u, first, day[12] if u == "u5" else first, start) for u, first, start in rows],
        "scenario string, user_id string, first date, touched date, start date",
    )
    assert time_scales.lists_in(new, (day[7], day[14]), 7) == [1, 1]
    assert time_scales.lists_in(new, (), 7) == []


def test_what_counts_is_the_first_task(spark, tmp_path) -> None:
    """Everybody views, u0 to u2 also buy, u2 what it viewed a week before."""
    rows = [("s", f"u{n}", "old", 40) for n in range(9)] + [("s", f"u{n}", "new", 3) for n in range(9)]
    store, _ = store_of(spark, tmp_path / "w", [*rows, ("s", "u2", "seen", 10)])
    bought = F.expr("user_id < 'u3' AND item_id IN ('new', 'seen') AND NOT (user_id = 'u2' AND item_id = 'new')")
    events = store.read(INTERACTIONS).withColumn("event", F.when(bought, "buy").otherwise("view"))
    again = events.where("item_id = 'seen'").withColumn("event_date", F.lit(MONDAY - timedelta(days=2)))
    events = events.where("item_id != 'seen'").unionByName(again).unionByName(
        events.where("item_id = 'seen'").withColumn("event", F.lit("view"))
    ).withColumn("weight", F.lit(1.0))  # fmt: skip
    task = {"name": "buy", "kind": "binary", "sql": "count_if(event = 'buy') > 0"}
    config = config_of(tmp_path / "w", training_examples={"tasks": [task]})
    found = time_scales.positives(events, config)
    assert sorted(row.user_id for row in found.collect()) == ["u0", "u1", "u2"]
    assert time_scales.lists_in(found, (MONDAY - timedelta(days=7),), 7) == [2]  # not u2


def test_windows_need_some_history() -> None:
    """Ten events a day for 100 days: a fifth of them lie before day 80 counted from the Monday."""
    days = {MONDAY - timedelta(days=n): 10 for n in range(1, 101)}
    found = time_scales.windows_of(days, MONDAY, 28)
    assert [(MONDAY - as_of).days for as_of in found] == [28, 56]


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (
            {14: [700] * 9, 28: [900] * 9, 56: [2000] * 9},
            (28, 9, 3),
        ),  # the shortest with 800; three would hold 2,000, nine more 8,000
        ({28: [9000] * 9}, (28, 3, 1)),  # two are enough, three are taken
        ({91: [1000, 1000, 5600, 2600, 900]}, (91, 4, 2)),  # two more hold 8,000
        ({91: [400] * 9}, (91, 9, 4)),  # five would judge; at most half do
        ({14: [10] * 9, 91: [40, 30]}, (91, 2, 1)),  # none is rich: the longest
        ({14: [10], 28: []}, (28, 3, 1)),  # no length has two windows: the configuration's
    ],
)
def test_windows_by_hand(lists, expected) -> None:
    assert time_scales.choose_windows(lists, config_of("w")) == expected


def test_dcg_by_hand() -> None:
    """The first two places count. s has counts 3, 2 and 1; of what is wanted, one is second and two are third. t has no
    event, so its order is that of all, and three are first. (1/log2(3) + 3) / 6."""
    popularity = popular.fit(np.array([2, 0, 1]), np.array([1.0, 3.0, 2.0]), 2, 3, 0.0)
    wanted = sp.csr_matrix([[0, 1.0, 2.0], [3.0, 0, 0]])
    assert time_scales.dcg(popularity, wanted, 2) == pytest.approx((1 / np.log2(3) + 3) / 6)
    assert time_scales.dcg(popularity, wanted, 9) == pytest.approx((1 / np.log2(3) + 2 / 2 + 3) / 6)
