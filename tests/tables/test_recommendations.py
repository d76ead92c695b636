"""Reasons, who is expected to get a list, and that every check finds the fault that it is named after."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import ScenarioRule, Scenarios
from recspark.tables import recommendations as table
from recspark.tables.recommendations import TABLE, TOP
from recspark.warehouse.store import Store
from tests.stages import hand_made

RUN_DATE = date(2024, 3, 1)
K = 3
RULES = Scenarios(
    overrides={"open": ScenarioRule(seen="allow"), "barred": ScenarioRule(where="item_id NOT IN ('c', 'e')")}
)
PAIRS = "scenario string, user_id string"
EVENTS = "scenario string, user_id string, item_id string"


def good_list(scenario: str = "shop", user: str = "u1") -> list[dict]:
    """Three places; b and c have equal scores, in the order of their ids."""
    places = [("a", 0.9, "linear"), ("b", 0.5, "popular"), ("c", 0.5, "content")]
    fixed = {"run_date": RUN_DATE, "scenario": scenario, "user_id": user, "model": "gbdt", "run_id": "run1"}
    return [
        {**fixed, "rank": rank, "item_id": item, "score": score, "source": source, "reason": "popular in x"}
        for rank, (item, score, source) in enumerate(places, start=1)
    ]


def check(spark, rows, expected):
    """u1 has interacted with `d`, u2 with `a`; the items a, b, c, d are known."""
    return table.check(
        spark.createDataFrame([tuple(row[name] for name in TABLE.columns) for row in rows], TABLE.schema),
        spark.createDataFrame(list(expected), PAIRS),
        spark.createDataFrame([("u1", "d"), ("u2", "a")], "user_id string, item_id string"),
        spark.createDataFrame([(item,) for item in "abcd"], "item_id string"),
        RULES,
        K,
        RUN_DATE,
    )


def test_a_good_night_passes(spark):
    # `a`, which u2 has seen, may return in `open`; `d`, which u1 has seen, ends the list as a repeat
    repeat = good_list("other")
    repeat[2] |= {"item_id": "d", "source": "repeat"}
    rows = [*good_list("shop", "u1"), *good_list("open", "u2"), *repeat]
    found = check(spark, rows, [("shop", "u1"), ("open", "u2"), ("other", "u1")])
    assert (found.num_rows, found.num_lists, found.failures, found.reason) == (9, 3, {}, "")


def test_given_candidates_may_make_short_lists(spark):
    """u1 was given two rows, one of them of a seen item; u2 was to get three."""
    short = good_list("shop", "u1")[:2]
    short[1] |= {"item_id": "d", "source": "given"}
    rows = spark.createDataFrame([tuple(row[n] for n in TABLE.columns) for row in short], TABLE.schema)
    sized = spark.createDataFrame([("shop", "u1", 2), ("shop", "u2", 3)], f"{PAIRS}, size int")
    seen = spark.createDataFrame([("u1", "d")], "user_id string, item_id string")
    known = spark.createDataFrame([(item,) for item in "abcd"], "item_id string")
    found = table.check(rows, sized, seen, known, RULES, K, RUN_DATE)
    assert found.failures == {"eligible users without a list": 1}


# Each of u1's lists below is broken in one place: (place, changes, what must be counted).
FAULTS = {
    "gap": (2, {"rank": 4}, "lists without ranks 1 to 3"),
    "twice": (2, {"item_id": "b"}, "lists with an item twice"),
    "rises": (2, {"score": 0.6}, "lists whose score rises with rank"),
    "untidy": (2, {"item_id": "B", "source": "repeat"}, "lists with equal scores out of item_id order"),
    "null": (2, {"reason": None}, "rows with a null"),
    "infinite": (2, {"score": -float("inf")}, "scores that are not finite"),
    "nan": (0, {"score": float("nan")}, "scores that are not finite"),
    "unknown": (2, {"item_id": "z"}, "items that are not known"),
    "seen": (2, {"item_id": "d"}, "items that the user has interacted with"),
    "unseen": (2, {"source": "repeat"}, "repeats that the user has not interacted with"),
    "early": (1, {"item_id": "d", "source": "repeat", "score": 0.6}, "lists with a repeat before a new item"),
    "barred": (2, {}, "items that their scenario's `where` leaves out"),  # c
    "dated": (0, {"run_date": date(2024, 2, 1)}, "rows of another run_date"),
}


def test_every_fault_is_found_and_counted(spark):
    rows = [*good_list("nobody"), *good_list("short")[:2]]
    expected = dict.fromkeys((fault for _, _, fault in FAULTS.values()), 1)
    for name, (place, changes, _) in FAULTS.items():
        broken = good_list(name)
        broken[place] |= changes
        rows += broken
    eligible = [("missing", "u1"), ("short", "u1"), *((name, "u1") for name in FAULTS)]
    expected |= {
        "eligible users without a list": 1,  # missing
        "lists for users who are not eligible": 1,  # nobody
        "lists without exactly 3 rows": 1,  # short
        "lists without ranks 1 to 3": 1 + 1,  # gap, short
        "scores that are not finite": 1 + 1,  # infinite, nan
        "items that are not known": 1 + 1,  # unknown, and `B` of untidy
        "repeats that the user has not interacted with": 1 + 1,  # unseen, and `B` of untidy
    }
    found = check(spark, rows, eligible)
    assert found.failures == expected
    assert (found.num_rows, found.num_lists) == (3 + 2 + 3 * len(FAULTS), 2 + len(FAULTS))


def test_nothing_at_all_is_no_night(spark):
    assert "rows: nothing to publish" in check(spark, [], []).failures


def test_the_reason_names_counts():
    found = table.Checked(10, 2, {"items that are not known": 1234, "rows with a null": 1})
    assert found.reason == "1,234 items that are not known; 1 rows with a null"


def test_eligible_own_all_given_and_default(spark):
    events = spark.createDataFrame([("shop", "u1", "a"), ("shop", "u1", "b"), ("app", "u2", "a")], EVENTS)
    given = spark.createDataFrame([("new", "u9"), ("shop", "u1")], PAIRS)
    rules = Scenarios(overrides={"app": ScenarioRule(users="all")})

    def lists(*args):
        return sorted(tuple(r) for r in table.eligible(events, *args).collect())

    assert lists(Scenarios(), None, False) == [("app", "u2"), ("shop", "u1")]
    assert lists(rules, None, False) == [("app", "u1"), ("app", "u2"), ("shop", "u1")]
    assert lists(rules, given, True) == [
        ("app", c.DEFAULT_USER), ("app", "u1"), ("app", "u2"),
        ("new", c.DEFAULT_USER), ("new", "u9"),
        ("shop", c.DEFAULT_USER), ("shop", "u1"),
    ]  # fmt: skip


def test_build_gives_ids_models_and_reasons(spark):
    top = spark.createDataFrame(
        [
            ("Germany", 0, 1, 0, 0.9, "linear", 1, "gbdt", None),
            ("Germany", 0, 2, 1, 0.8, "content", 2, "gbdt", None),
            ("Germany", 0, 3, 2, 0.7, "popular", -1, "gbdt", None),
            ("Germany", 0, 4, 3, 0.6, "linear", -1, "gbdt", None),
            ("Germany", 0, 5, 0, 0.5, "linear", 1, "popular", None),  # linear found it, popularity put it there
            ("Germany", -1, 1, 3, 0.5, "repeat", 3, "popular", None),
        ],
        TOP,
    )
    long = "A  LONG\nNAME " * 20
    items = spark.createDataFrame(
        [("a", 0, "LAMP"), ("b", 1, " WHITE METAL  LANTERN"), ("c", 2, None), ("d", 3, long)],
        "item_id string, item_idx int, text string",
    ).withColumn("name", F.lit(None).cast("string"))
    users = spark.createDataFrame([("u1", 0), (c.DEFAULT_USER, -1)], "user_id string, user_idx int")
    built = table.build(top, users, items, RUN_DATE, "run1", {})
    assert built.columns == TABLE.columns
    found = {(r.user_id, r["rank"]): (r.item_id, r.model, r.reason) for r in built.collect()}
    assert found == {
        ("u1", 1): ("a", "gbdt", "often with WHITE METAL LANTERN"),
        ("u1", 2): ("b", "gbdt", "similar to c"),  # no text: its id
        ("u1", 3): ("c", "gbdt", "popular in Germany"),
        ("u1", 4): ("d", "gbdt", "suits earlier choices"),  # what it goes with was returned
        ("u1", 5): ("a", "popular", "popular in Germany"),
        (c.DEFAULT_USER, 1): ("d", "popular", "chosen before"),
    }


def test_reasons_have_the_name_of_an_item_and_the_words_of_the_configuration(spark):
    top = spark.createDataFrame(
        [
            ("Germany", 0, 1, 1, 0.9, "linear", 0, "gbdt", None),
            ("Germany", 0, 2, 1, 0.8, "content", 0, "gbdt", "new here"),
            ("Germany", 0, 3, 0, 0.7, "linear", -1, "gbdt", None),  # what it goes with was returned
            ("Germany", 0, 4, 0, 0.6, "sequence", -1, "gbdt", None),
            ("Germany", 0, 5, 0, 0.5, "popular", -1, "gbdt", None),
            ("Germany", 0, 6, 0, 0.4, "repeat", -1, "gbdt", None),
        ],
        TOP,
    )
    items = spark.createDataFrame(
        [("a", 0, "Pulp Fiction. Crime, Drama.", "Pulp  Fiction"), ("b", 1, "Heat. Crime.", None)],
        "item_id string, item_idx int, text string, name string",
    )
    users = spark.createDataFrame([("u1", 0)], "user_id string, user_idx int")
    reasons = {
        "linear": "because you watched {item} in {scenario}",
        "sequence": "to go on",  # needs no item
        "popular": "liked by many",
        "without_item": "for you",
        "repeat": "once more",
    }
    rows = table.build(top, users, items, RUN_DATE, "run1", reasons).orderBy("rank").collect()
    assert [row.reason for row in rows] == [
        "because you watched Pulp Fiction in Germany",
        "similar to Pulp Fiction, new here",  # the words are as always; a boost adds its own
        "for you",
        "to go on",
        "liked by many",
        "once more",
    ]


def test_long_texts_are_shortened_to_one_line(spark):
    row = spark.createDataFrame([("a", "WORD  \n" * 40, None)], "item_id string, text string, name string")
    name = row.select(table.name_of_item()).first()[0]
    assert name.startswith("WORD WORD WORD")
    assert name.endswith("...")
    assert len(name) <= table.MAX_TEXT


def test_build_leaves_nulls_for_the_checks(spark):
    top = spark.createDataFrame([("nowhere", 7, 1, 7, 0.9, "linear", 7, None, None)], TOP)
    users = spark.createDataFrame([], "user_id string, user_idx int")
    items = spark.createDataFrame([], "item_id string, item_idx int, text string, name string")
    built = table.build(top, users, items, RUN_DATE, "run1", {})
    assert built.where(F.col(c.USER_ID).isNull() & F.col(c.ITEM_ID).isNull() & F.col(c.MODEL).isNull()).count() == 1


def listed(spark: SparkSession, *changes: dict[str, Any]) -> DataFrame:
    """The first row of a good list, once with each of the changes."""
    rows = [good_list()[0] | change for change in changes]
    return spark.createDataFrame([tuple(row[name] for name in TABLE.columns) for row in rows], TABLE.schema)


@pytest.mark.parametrize(
    ("check", "column", "good", "bad"),
    [
        ("rank_from_1", c.RANK, [1, 2], [0, -1, None]),
        ("finite_score", c.SCORE, [0.0, -3.5, 1e300], [float("nan"), float("inf"), -float("inf"), None]),
    ],
)
def test_what_the_table_refuses(spark: SparkSession, check: str, column: str, good: list, bad: list) -> None:
    condition = F.coalesce(F.expr(dict(TABLE.checks)[check]), F.lit(False))  # for Delta, null is broken as well
    rows = listed(spark, *({column: value} for value in good + bad))
    assert [row[0] for row in rows.select(condition).collect()] == [True] * len(good) + [False] * len(bad)


def test_delta_refuses_it_when_the_table_is_made_and_later(spark: SparkSession, tmp_path: Path) -> None:
    store = Store(spark, hand_made.config(tmp_path), "run1")
    with pytest.raises(Py4JJavaError, match="CHECK constraint finite_score"):
        store.replace(TABLE, listed(spark, {"score": float("nan")}))
    assert store.replace(TABLE, listed(spark, {})) == 0
    with pytest.raises(Py4JJavaError, match="CHECK constraint rank_from_1"):
        store.append(TABLE, listed(spark, {"rank": 0}))
    assert (store.version(TABLE), store.read(TABLE).count()) == (0, 1)


def test_a_table_without_constraints_stays_without(spark: SparkSession, tmp_path: Path) -> None:
    """An older version of recspark made it. A constraint that somebody adds by hand is no change of its rows."""
    store = Store(spark, hand_made.config(tmp_path), "run1")
    store.replace(replace(TABLE, checks=()), listed(spark, {}))
    assert store.append(TABLE, listed(spark, {"score": float("nan")})) == 1
    before = store.token(TABLE)
    spark.sql(f"ALTER TABLE delta.`{store.name(TABLE.noun)}` ADD CONSTRAINT by_hand CHECK (rank >= 1)")
    assert Store(spark, hand_made.config(tmp_path), "run2").token(TABLE) == before
