"""The stage on small deliveries: a first night, the same again, a held one, held again, accepted."""

from datetime import date, timedelta

import pytest

from recspark.config.schema import Config
from recspark.errors import PublishError
from recspark.stages import interactions, night_statistics
from recspark.tables.night_statistics import CATALOGUE, EVENTS, TABLE
from recspark.tables.published_runs import TABLE as RUNS
from recspark.warehouse.store import Store

FIRST = date(2024, 1, 1)
HEADER = "place,who,what,time,amount"


def line(place: str, user: int, n: int) -> str:
    return f"{place},{place}{user},i{n % 9},{FIRST + timedelta(days=n)} 10:00:00,{user}"


def deliver(tmp_path, days: int, places: tuple[str, ...] = ("de", "fr")) -> None:
    lines = [line(place, user, n) for n in range(days) for place in places for user in range(4)]
    (tmp_path / "raw.csv").write_text("\n".join([HEADER, *lines]) + "\n")


def night(spark, tmp_path, days: int, run_id: str, accept: bool = False):
    """The stages up to this one, the night after so many days; its summary and store."""
    source = {"format": "csv", "paths": [str(tmp_path / "raw.csv")], "options": {"header": "true"}, "scenario": "place",
              "user_id": "who", "item_id": "what", "event_time": "time", "value": "amount"}  # fmt: skip
    tree = {"warehouse": str(tmp_path / "w"), "source": {"interactions": source}}
    config = Config.model_validate(tree)
    store, run_date = Store(spark, config, run_id), FIRST + timedelta(days=days)
    interactions.refresh(store, config, run_date)
    return night_statistics.refresh(store, config, run_date, accept=accept), store


def test_a_scenario_that_left_is_held_until_it_is_accepted(spark, tmp_path) -> None:
    """12 days of 4 rows in each of two scenarios; then `fr` is gone: 48 rows of 48."""
    deliver(tmp_path, 12)
    first, store = night(spark, tmp_path, 12, "one")
    assert "first night" in first.note and first.rows_out == 12 * 3
    assert night(spark, tmp_path, 12, "again")[0].skipped
    deliver(tmp_path, 13, places=("de",))
    for run_id in ("held", "held again"):
        with pytest.raises(
            PublishError, match=r"input of 2024-01-14 held: .*past rows, fr: 48 added or removed; 48 before"
        ):
            night(spark, tmp_path, 13, run_id)
    runs = {row.run_id: row for row in store.read(RUNS).collect()}
    assert {name: row.status for name, row in runs.items()} == {"held": "held", "held again": "held"}
    assert "past rows, fr: 48" in runs["held"].reason and "--accept" not in runs["held"].reason
    assert store.read(TABLE).where("day = '2024-01-13'").count() == 0
    accepted, store = night(spark, tmp_path, 13, "accepted", accept=True)
    assert accepted.note.startswith("accepted: past rows, fr: 48")
    assert night(spark, tmp_path, 13, "after")[0].skipped
    kinds = {row.kind for row in store.read(TABLE).select("kind").distinct().collect()}
    assert kinds == {EVENTS} and CATALOGUE not in kinds
    assert store.read(TABLE).where("day = '2024-01-13'").count() == 2  # de, and the delivery


def test_a_night_like_the_others_passes_and_is_kept(spark, tmp_path) -> None:
    deliver(tmp_path, 12)
    night(spark, tmp_path, 12, "one")
    deliver(tmp_path, 13)
    summary, _ = night(spark, tmp_path, 13, "two")
    assert not summary.skipped and summary.note.startswith("1 days, ")
    assert summary.rows_out == 3
