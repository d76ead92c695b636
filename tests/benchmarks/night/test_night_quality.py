import json
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.night import night_quality
from recspark import cli
from recspark.config.load import load
from recspark.errors import ConfigError


def test_dates_by_number_end_with_the_data() -> None:
    """Data up to 2020-01-31: the last 28 days begin on 2020-01-04, the ones before on 2019-12-07."""
    found = night_quality.run_dates("2", date(2020, 2, 1), 28)
    assert found == [date(2020, 1, 4), date(2019, 12, 7)]
    assert night_quality.run_dates("2019-12-07, 2019-11-09", date(2020, 2, 1), 28)[1] == date(2019, 11, 9)
    with pytest.raises(ConfigError, match=r"--dates soon: .*expected a number, or dates"):
        night_quality.run_dates("soon", date(2020, 2, 1), 28)


def test_a_yaml_in_the_folder_or_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = tmp_path / "online-retail"
    shop.mkdir()
    assert night_quality.find(str(shop)) == (shop, "conf/online_retail.yaml")
    assert list(night_quality.with_paths("conf/online_retail.yaml", shop)) == [
        f'source.{name}.paths=["{shop}/transactions.parquet"]' for name in ("interactions", "items")
    ]
    (shop / "mine.yaml").write_text("warehouse: w")
    assert night_quality.find(str(shop)) == (shop, str(shop / "mine.yaml"))
    other = tmp_path / "nobody-knows"
    other.mkdir()
    with pytest.raises(ConfigError, match=r"no YAML in .*nobody-knows and no conf/nobody_knows.yaml"):
        night_quality.find(str(other))
    with pytest.raises(ConfigError, match="is no folder"):
        night_quality.find("nowhere")


def test_the_report_has_dates_differences_and_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds are averaged per list before they meet a rival: (0.4 + 0.6) / 2 - 0.2 = 0.3."""
    rows = [("2020-01-04", seed, "published", "s", "u", 0.4 + 0.2 * seed) for seed in (0, 1)]
    rows += [("2020-01-04", 0, "popular_28", "s", "u", 0.2)]
    names = ["run_date", "seed", "name", "scenario", "user_id", "ndcg"]
    found = night_quality.report(pd.DataFrame(rows, columns=names), 28)
    assert found["differences"]["popular_28"] == [0.3, 0.3, 0.3] and found["lists"] == 1
    assert found["published_by_seed"] == [0.4, 0.6]
    assert found["ndcg@10"]["published"] == {"2020-01-04": 0.5}
    assert "popular_28" in capsys.readouterr().out


def test_poor_scenarios_are_told_apart_and_a_rival_of_some_dates_is_judged_on_those(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """100 lists of `rich` gain nothing, two of `poor` .5 and .1; the older list is known at the second date alone."""
    rows = [("2020-02-01", 0, name, "rich", f"u{n}", 0.3) for n in range(100) for name in ("published", "popular_28")]
    for day, user, gain in (("2020-01-04", "a", 0.5), ("2020-02-01", "b", 0.1)):
        rows += [(day, 0, "published", "poor", user, 0.2 + gain), (day, 0, "popular_28", "poor", user, 0.2)]
    rows.append(("2020-02-01", 0, "older_list", "poor", "b", 0.25))
    names = ["run_date", "seed", "name", "scenario", "user_id", "ndcg"]
    found = night_quality.report(pd.DataFrame(rows, columns=names), 28)
    assert found["poor"]["lists"] == 2
    assert found["poor"]["differences"]["popular_28"][0] == 0.3  # (.5 + .1) / 2
    assert found["poor"]["differences"]["older_list"][0] == 0.05  # .3 - .25, on one list
    assert found["ndcg@10"]["older_list"] == {"2020-02-01": 0.25}
    assert "fewer than 100 lists: 2 lists" in capsys.readouterr().out


def test_an_older_list_loses_what_was_touched_since() -> None:
    older = pd.DataFrame(
        [("s", "u", "a", 1), ("s", "u", "b", 2), ("s", "u", "c", 3), ("s", "v", "a", 1)],
        columns=["scenario", "user_id", "item_id", "rank"],
    )
    before = pd.DataFrame([("t", "u", "a"), ("s", "u", "z")], columns=["scenario", "user_id", "item_id"])
    found = night_quality.untouched(older, before)
    assert found.to_numpy().tolist() == [["s", "u", "b", 1], ["s", "u", "c", 2], ["s", "v", "a", 1]]


def test_all_events_are_read_as_of_a_date_that_a_job_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spark: object
) -> None:
    """The job is run in this process."""
    days = ["2019-01-01", "2019-06-01", "2020-01-31"]
    raw = pd.DataFrame({"shop": "s", "who": ["u0", "u1", "u0"], "what": ["i0", "i0", "i1"], "at": pd.to_datetime(days)})
    raw.to_parquet(tmp_path / "raw.parquet")
    source = {"format": "parquet", "paths": [str(tmp_path / "raw.parquet")], "scenario": "shop", "user_id": "who"}
    source |= {"item_id": "what", "event_time": "at"}
    yaml = tmp_path / "shop.yaml"
    yaml.write_text(json.dumps({"warehouse": str(tmp_path / "w"), "source": {"interactions": source}}))

    def in_this_process(job: str, yaml: str, run_date: date, sets: tuple[str, ...]) -> None:
        assert cli.run((job,), yaml, str(run_date), sets) == 0

    monkeypatch.setattr(night_quality, "command", in_this_process)
    found = night_quality.events(str(yaml), (), load(str(yaml), ()), tmp_path)
    assert found["item_id"].tolist() == ["i0", "i0", "i1"] and found["weight"].tolist() == [1.0] * 3
