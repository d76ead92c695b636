"""The YAML for planted data and for every real set with a time: it loads, and says why."""

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from recspark.config.load import load
from recspark.errors import DataError
from recspark.stages import init
from tests.paths import DATA

TODAY = date(2024, 3, 1)


def written(tmp_path: Path, *places: object, today: date = TODAY) -> tuple[str, Path]:
    text, path = init.configuration([str(place) for place in places], today), tmp_path / "made.yaml"
    path.write_text(text, encoding="utf-8")
    return text, path


def films(folder: Path) -> Path:
    """MovieLens as its authors publish it: `::`, no header, Latin-1 titles."""
    folder.mkdir()
    rows = [f"{n % 30 + 1}::{n % 50 + 1}::{n % 5 + 1}::{978_300_760 + n}" for n in range(400)]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    titles = [f"{n}::Amélie {n} (2001)::Comedy|Romance" for n in range(1, 51)]
    (folder / "movies.dat").write_text("\n".join(titles) + "\n", encoding="latin-1")
    return folder


def test_films_without_any_name(tmp_path: Path) -> None:
    text, path = written(tmp_path, films(tmp_path / "ml"))
    config = load(str(path))
    events, items = config.source.interactions, config.source.items
    assert (events.user_id, events.item_id, events.options) == ("_c0", "_c1", {"sep": "::"})
    assert events.event_time == "timestamp_seconds(CAST(_c3 AS BIGINT))" and events.scenario == "'ml'"
    assert items is not None and (items.item_id, items.text) == ("_c0", "_c1")
    assert items.options == {"sep": "::", "encoding": "ISO-8859-1"}
    assert config.run_date == date(2001, 1, 1)  # 978300760 is 2000-12-31
    assert "user_id: _c0  # guess: 30 different, the first column of ids" in text
    assert text.startswith("# Written by `recspark init` from 400 rows") and "    # not used: _c2\n" in text


def test_purchases_come_first_and_new_data_has_no_run_date(tmp_path: Path) -> None:
    actions = ["view", "cart", "purchase now"] * 50
    times = [1_709_000_000_000 + n for n in range(150)]  # 2024-02-27
    rows = {"visitor": [f"v{n % 20}" for n in range(150)], "sku": [f"s{n % 30}" for n in range(150)], "event": actions}
    pd.DataFrame({**rows, "ts": times}).to_csv(tmp_path / "clicks.csv", index=False)
    _, path = written(tmp_path, tmp_path / "clicks.csv")
    config = load(str(path))
    tasks = config.training_examples.tasks
    assert (tasks[0].name, tasks[0].sql) == ("purchase_now", "count_if(event = 'purchase now') > 0")
    assert [t.name for t in tasks] == ["purchase_now", "cart", "view"] and config.run_date is None
    assert config.source.interactions.event_time == "timestamp_millis(CAST(ts AS BIGINT))"


def test_a_label_is_a_like(tmp_path: Path) -> None:
    rows = {"uid": [f"v{n % 20}" for n in range(90)], "iid": [f"s{n % 30}" for n in range(90)], "label": [0, 1] * 45}
    pd.DataFrame({**rows, "timestamp": [1_700_000_000 + n for n in range(90)]}).to_csv(tmp_path / "a.csv", index=False)
    _, path = written(tmp_path, tmp_path / "a.csv")
    config = load(str(path))
    assert config.source.interactions.event == "CASE WHEN CAST(label AS INT) = 1 THEN 'like' ELSE 'dislike' END"
    assert config.interactions.event_weights == {"dislike": 0.0}


def test_odd_names_are_quoted(tmp_path: Path) -> None:
    rows = {"user id": [f"v{n % 20}" for n in range(90)], "item.id": [f"s{n % 30}" for n in range(90)]}
    pd.DataFrame({**rows, "event time": ["2024-01-31"] * 90}).to_csv(tmp_path / "a.csv", index=False)
    _, path = written(tmp_path, tmp_path)
    found = load(str(path)).source.interactions
    assert (found.user_id, found.item_id, found.event_time) == ("`user id`", "`item.id`", "`event time`")


def test_names_that_yaml_or_sql_would_read_otherwise(tmp_path: Path) -> None:
    """`no` is false in YAML, a backtick ends a name in SQL; `buy no` is an event."""
    rows = {"user": [f"v{n % 20}" for n in range(90)], "item`id": [f"s{n % 30}" for n in range(90)]}
    done = ["no", "buy it", "view"] * 30
    frame = pd.DataFrame({**rows, "event": done, "time": ["2024-01-31"] * 90, "price": [1.5] * 90})
    frame.to_csv(tmp_path / "a.csv", index=False)
    _, path = written(tmp_path, tmp_path)
    config = load(str(path))
    assert config.source.interactions.item_id == "`item``id`"
    assert [task.name for task in config.training_examples.tasks] == ["buy_it", "no", "view"]
    assert init.yaml_text("no") == '"no"' and init.yaml_text("a: b") == '"a: b"' and init.yaml_text("'x'") == "\"'x'\""
    assert init.yaml_text("upper(x)") == "upper(x)"


MISSING = {
    "no time": ({"user": ["a", "b"], "item": ["x", "y"]}, r"no column for event_time \(when\) among user, item"),
    "no user": ({"item": ["x", "y"], "time": ["2024-01-01"] * 2}, r"no column for user_id \(who did it\)"),
    "no item": ({"user": ["x", "y"], "time": ["2024-01-01"] * 2}, r"no column for item_id \(with which item\)"),
    "nothing": ({"a": [1.5, 2.5], "b": [2.5, 1.5]}, "user_id .* and item_id .* and event_time"),
}


@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_one_line(tmp_path: Path, name: str) -> None:
    columns, message = MISSING[name]
    pd.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match=message) as raised:
        init.configuration([str(tmp_path)], TODAY)
    assert "\n" not in str(raised.value)


def test_a_table_of_the_catalogue(spark, tmp_path: Path) -> None:
    rows = [(f"u{n % 9}", f"i{n % 12}", date(2024, 1, n % 28 + 1)) for n in range(60)]
    spark.createDataFrame(rows, "user string, item string, day date").createOrReplaceGlobalTempView("clicks_of_init")
    _, path = written(tmp_path, "global_temp.clicks_of_init")
    found = load(str(path)).source.interactions
    assert (found.format, found.table, found.event_time) == ("table", "global_temp.clicks_of_init", "day")
    with pytest.raises(DataError, match=r"main\.nothing: neither a file nor a table"):
        init.configuration(["main.nothing"], TODAY)


REAL = {  # set -> scenario, user, item, time, run date
    "online-retail": ("Country", "CustomerID", "StockCode", "InvoiceDate", date(2011, 12, 10)),
    "xmarket-electronics": ("regexp_extract", "userId", "itemId", "date", date(2020, 11, 19)),
    "amazon-beauty-electronics": ("domain", "user_id", "item_id", "timestamp_seconds", date(2014, 7, 24)),
    "retail-rocket": ("'retail_rocket'", "user_id", "item_id", "timestamp_seconds", date(2015, 9, 19)),
    "movielens-1m-text-ctr": ("'movielens_1m_text_ctr'", "uid", "iid", "timestamp_seconds", date(2003, 2, 1)),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_with_a_time(tmp_path: Path, name: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not here")
    text, path = written(tmp_path, DATA / name)
    config = load(str(path))
    found = config.source.interactions
    scenario, user, item, time, run_date = REAL[name]
    assert found.scenario.startswith(scenario) and found.event_time.startswith(time)
    assert (found.user_id, found.item_id, config.run_date) == (user, item, run_date)
    assert text.count("# guess: ") >= 4


@pytest.mark.parametrize(
    "name,missing",
    (("open-bandit", "user_id"), ("movielens-1m", "event_time"), ("amazon-beauty-sports-toys", "event_time")),
)
def test_real_data_without_a_user_or_a_time(name: str, missing: str) -> None:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not here")
    with pytest.raises(DataError, match=f"found no column for {missing}"):
        init.configuration([str(DATA / name)], TODAY)
