"""What columns are, by name and by content; each case is planted."""

from typing import Any

import pandas as pd
import pytest

from recspark.sources import guess

N = 300
USER = [f"u{n % 40}" for n in range(N)]
ITEM = [f"i{n % 70}" for n in range(N)]


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


TIMES = {  # values -> SQL
    "seconds": ([1_600_000_000 + n for n in range(N)], "timestamp_seconds(CAST(t_time AS BIGINT))"),
    "seconds as text": ([str(1_600_000_000 + n) for n in range(N)], "timestamp_seconds(CAST(t_time AS BIGINT))"),
    "milliseconds": ([1_600_000_000_000 + n for n in range(N)], "timestamp_millis(CAST(t_time AS BIGINT))"),
    "microseconds": ([1_600_000_000_000_000 + n for n in range(N)], "timestamp_micros(CAST(t_time AS BIGINT))"),
    "ISO": (["2020-01-31T10:00:00Z"] * N, "t_time"),
    "a day": (["2020-01-31"] * N, "t_time"),
    "British": (["31/01/2020 10:30"] * N, "to_timestamp(t_time, 'dd/MM/yyyy HH:mm')"),
    "American": (["01/31/2020"] * N, "to_timestamp(t_time, 'MM/dd/yyyy')"),
    "digits": (["20200131"] * N, "to_timestamp(t_time, 'yyyyMMdd')"),
    "typed": (list(pd.date_range("2020-01-01", periods=N)), "t_time"),
    "a number of no time": ([5 + n for n in range(N)], None),
    "words": (["soon"] * N, None),
}


@pytest.mark.parametrize("name", TIMES)
def test_a_time_is_known_by_its_values(name: str) -> None:
    values, sql = TIMES[name]
    found = guess.guesses(frame(user=USER, item=ITEM, t_time=values))
    assert (found["event_time"].sql if "event_time" in found else None) == sql


@pytest.mark.parametrize("name", [name for name, (_, sql) in TIMES.items() if sql])
def test_the_guessed_sql_gives_the_same_day_in_pandas(name: str) -> None:
    values, sql = TIMES[name]
    days = guess.datetimes(pd.Series(values), str(sql))
    assert days.notna().all() and days.dt.year.between(2020, 2021).all()


NAMES = [  # columns -> user, item
    (("CustomerID", "StockCode", "InvoiceNo"), "CustomerID", "StockCode"),
    (("userId", "itemId", "user_active_degree"), "userId", "itemId"),
    (("uid", "iid", "flag"), "uid", "iid"),
    (("reviewerID", "asin", "helpful"), "reviewerID", "asin"),
    (("User_ID", "News_ID", "Category"), "User_ID", "News_ID"),
    (("visitorid", "itemid", "transactionid"), "visitorid", "itemid"),
    (("item_name", "movie id", "client no"), "client no", "movie id"),
    (("user_feature_0", "item_id", "n"), None, "item_id"),
]


@pytest.mark.parametrize("names,user,item", NAMES)
def test_ids_are_known_by_their_names(names: tuple[str, ...], user: str | None, item: str) -> None:
    values = {name: (USER if name == user else ITEM) for name in names}
    found = guess.guesses(frame(**values))
    assert found["item_id"].sql == guess.quoted(item)
    assert (found["user_id"].sql if "user_id" in found else None) == (guess.quoted(user) if user else None)


def test_without_names_the_order_and_the_values_say_it() -> None:
    """MovieLens: user, item, stars, unix seconds."""
    stars, times = [n % 5 + 1 for n in range(N)], [978_300_760 + n for n in range(N)]
    found = guess.guesses(frame(_c0=USER, _c1=ITEM, _c2=stars, _c3=times))
    assert {key: one.sql for key, one in found.items()} == {
        "user_id": "_c0",
        "item_id": "_c1",
        "event_time": "timestamp_seconds(CAST(_c3 AS BIGINT))",
    }
    assert "first column of ids" in found["user_id"].why


def test_a_fact_of_the_user_is_no_time_of_the_event() -> None:
    joined = [f"2020-01-{int(user[1:]) % 28 + 1:02d}" for user in USER]
    assert "event_time" not in guess.guesses(frame(user=USER, item=ITEM, date=joined))
    assert "event_time" not in guess.guesses(frame(user=USER, item=ITEM, join_time=["2020-01-01"] * N))
    moved = ["2020-02-02", *joined[1:]]
    assert guess.guesses(frame(user=USER, item=ITEM, date=moved))["event_time"].sql == "date"


def test_scenario_by_column_or_by_the_files_names() -> None:
    rows = frame(user=USER, item=ITEM, country=["de", "fr", "uk"] * (N // 3), tab=[1, 2] * (N // 2))
    found = guess.guesses(rows, ["a.csv", "b.csv"])["scenario"]
    assert found.sql == "country" and found.others == ("tab",) and found.why.startswith("3 different: de")
    rows = frame(user=USER, item=ITEM, country=USER[:1] * N)  # one country is no scenario
    assert "scenario" not in guess.guesses(rows)
    found = guess.guesses(rows, ["de_5core.txt", "fr_5core.txt"])["scenario"]
    assert found.sql == "regexp_extract(_metadata.file_name, '^(.*)_5core[.]txt$', 1)"
    for names in (["train.csv", "test.csv"], ["part-1.csv", "part-2.csv"], ["a.csv"]):
        assert "scenario" not in guess.guesses(rows, names)
    assert guess.name_parts(["shop-de.csv", "shop-at.csv"]) == ("shop-", ".csv", ["at", "de"])


def test_event_value_text_and_price() -> None:
    actions, stars, titles = ["view", "cart", "buy"] * (N // 3), [1, 2, 3] * (N // 3), [f"Red {n}" for n in range(N)]
    found = guess.guesses(frame(user=USER, item=ITEM, action=actions, rating=stars, title=titles, price=stars))
    assert found["event"].sql == "action" and found["event"].why == "values: buy, cart, view"
    assert found["value"].sql == "rating" and found["value"].others == ("price",)
    assert found["text"].sql == "title" and found["price"].sql == "price"
    clicks = guess.guesses(frame(user=USER, item=ITEM, is_click=[0, 1] * (N // 2)))["event"]
    assert clicks.sql == "CASE WHEN CAST(is_click AS INT) = 1 THEN 'click' ELSE 'impression' END"
    likes = guess.guesses(frame(user=USER, item=ITEM, label=[0, 1] * (N // 2)))["event"]
    assert likes.sql == "CASE WHEN CAST(label AS INT) = 1 THEN 'like' ELSE 'dislike' END"
    assert "event" not in guess.guesses(frame(user=USER, item=ITEM, label=[0, 1, 2] * (N // 3)))


def test_lists_and_decimals_are_no_ids() -> None:
    lists, decimals = [[1, 2]] * N, [n / 7 for n in range(N)]
    assert "item_id" not in guess.guesses(frame(user=USER, item=lists))
    assert "user_id" not in guess.guesses(frame(user=decimals, item=ITEM))


def test_a_catalogue_has_the_events_items_and_a_text() -> None:
    items = frame(movieId=[f"i{n}" for n in range(70)], title=[f"Film {n}" for n in range(70)])
    found = guess.catalogue(items, pd.Series(ITEM))
    assert found is not None and [one.sql for one in found] == ["movieId", "title"]
    unnamed = guess.catalogue(items.set_axis(["_c0", "_c1"], axis=1), pd.Series(ITEM))
    assert unnamed is not None and [one.sql for one in unnamed] == ["_c0", "_c1"]
    assert guess.catalogue(items, pd.Series(["other"])) is None
    assert guess.catalogue(items[["movieId"]], pd.Series(ITEM)) is None


def test_items_apart() -> None:
    domain = ["a" if n % 70 < 35 else "b" for n in range(N)]
    pairs = [f"i{n}" for n in range(N)]
    assert guess.items_apart(frame(domain=domain, item=pairs), "domain", "item")
    assert not guess.items_apart(
        frame(domain=["a", "b"] * (N // 2), item=[f"i{n // 2}" for n in range(N)]), "domain", "item"
    )


@pytest.mark.parametrize(
    "name,sql", (("a", "a"), ("two words", "`two words`"), ("a.b", "`a.b`"), ("o`clock", "`o``clock`"))
)
def test_a_name_is_quoted_where_sql_needs_it(name: str, sql: str) -> None:
    assert guess.quoted(name) == sql
