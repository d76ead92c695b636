"""Fingerprints over keys of the configuration, and the files that name a date's folder. No Spark: a stub store."""

from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from recspark import model_folder
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.warehouse import artifacts
from recspark.warehouse.artifacts import ARTIFACTS, fingerprint
from recspark.warehouse.store import Table

DAY = date(2024, 3, 4)
SOURCE = {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}
ITEMS = {"format": "parquet", "paths": ["y"], "item_id": "i", "text": "t"}


@dataclass(frozen=True)
class StubStore:
    warehouse: str
    version: str = "table@0"

    def models(self, noun: str) -> str:
        return f"{self.warehouse}/models/{noun}"

    def exists(self, table: Table) -> bool:
        return True

    def is_fresh(self, table: Table, expected: str) -> bool:
        return False  # the newest commit has another fingerprint

    def token(self, table: Table) -> str:
        return self.version


def config(**sections: Any) -> Config:
    return Config.model_validate({"warehouse": "w", "source": {"interactions": SOURCE, "items": ITEMS}} | sections)


def moved_by(**sections: Any) -> set[str]:
    """The artefacts whose fingerprint another configuration moves."""
    plain, other = config(), config(**sections)
    return {name for name in ARTIFACTS if fingerprint(name, plain) != fingerprint(name, other)}


def test_a_key_moves_the_artefacts_that_read_it() -> None:
    sources = {"interactions": SOURCE, "items": {**ITEMS, "text": "other"}}
    assert moved_by(source=sources) == {"items"}
    features = {"features": {"brand": {"kind": "category", "sql": "b"}}}
    of_items = {"interactions": SOURCE, "items": {**ITEMS, **features}}
    assert moved_by(source=of_items) == {"item_features", "given_features"}
    task = {"name": "buy", "kind": "binary", "sql": "count(*) > 1"}
    of_tasks = {"candidates", "training_examples", "model_metrics", "ranker", "gbdt", "time_scales"}
    assert moved_by(training_examples={"tasks": [task]}) == of_tasks
    assert moved_by(model_metrics={"num_windows": 2}) == {"model_metrics", "ranker", "gbdt", "time_scales"}
    weights = {"candidates", "training_examples", "model_metrics", "text_adapter", "retriever", "time_scales"}
    assert moved_by(interactions={"event_weights": {"return": -1}}) == weights
    assert moved_by(gbdt={"num_leaves": 7}) == {"gbdt"}
    assert moved_by(ranker={"dropout": 0.5}) == {"ranker"}
    assert moved_by(retriever={"linear": {"l2": 7}}) == {"retriever"}
    assert moved_by(recommendations={"k": 5}) == {"candidates", "model_metrics", "recommendations"}
    assert moved_by(candidates={"block_users": 7}) == set()  # memory, not numbers
    assert moved_by(training={"num_processes": 2}) == set() == moved_by(maintenance={"keep_nights": 3})
    assert moved_by(warehouse="elsewhere", tables={"items": "things"}, spark={"spark.ui.enabled": "true"}) == set()
    reasons = {"relations": {"brand": "b"}, "reasons": {"brand": "also by {entity}"}}
    without, with_reasons = (config(item_facts={**reasons, "reasons": text}) for text in ({}, reasons["reasons"]))
    assert {n for n in ARTIFACTS if fingerprint(n, without) != fingerprint(n, with_reasons)} == {"recommendations"}


def test_a_new_key_that_is_off_moves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version may add keys to every section, all of them off by default."""
    before = {name: fingerprint(name, config()) for name in ARTIFACTS}
    dump = Config.model_dump

    def with_new_keys(tree: Any) -> Any:
        if isinstance(tree, dict):
            inner = {key: with_new_keys(value) for key, value in tree.items()}
            return inner | {"new_number": None, "new_switch": False, "new_list": []}
        return [with_new_keys(value) for value in tree] if isinstance(tree, list) else tree

    monkeypatch.setattr(Config, "model_dump", lambda self, **how: with_new_keys(dump(self, **how)))
    assert {name: fingerprint(name, config()) for name in ARTIFACTS} == before


def test_settings_of_spark_that_change_the_meaning_of_sql_count() -> None:
    everything = set(ARTIFACTS)
    assert moved_by(spark={"spark.sql.ansi.enabled": "true"}) == everything
    assert moved_by(spark={"spark.sql.caseSensitive": "true"}) == everything
    only_speed = {
        "spark.driver.memory": "8g",
        "spark.sql.shuffle.partitions": "9",
        "spark.sql.adaptive.enabled": "false",
    }
    assert moved_by(spark=only_speed) == set()


def test_inputs_move_a_fingerprint() -> None:
    assert fingerprint("items", config(), "a", 1) == fingerprint("items", config(), "a", 1)
    assert len({fingerprint("items", config(), *inputs) for inputs in (("a", 1), ("a", 2), ("a",), ())}) == 4


def test_a_confirmed_table_is_fresh_until_it_changes(tmp_path: Path) -> None:
    """A run without changes makes no commit, so it leaves a note; any later commit ends what the note says."""
    table, store = Table("items", "item_id string", ("item_id",)), StubStore(str(tmp_path))
    confirmed = partial(artifacts.is_fresh, table=table, day=DAY, expected="a")
    assert not confirmed(store)
    artifacts.confirm(store, table, DAY, "a")
    assert confirmed(store) and not confirmed(store, expected="b") and not confirmed(store, day=date(2024, 3, 5))
    assert not confirmed(replace(store, version="table@1"))


def test_a_date_finds_its_folder(tmp_path: Path) -> None:
    store: Any = StubStore(str(tmp_path))
    assert artifacts.find(store, config(), "retriever", DAY) is None
    path = artifacts.folder(store, "retriever", "2024-03-04-abc")
    artifacts.point(store, config(), "retriever", DAY, path)
    assert artifacts.find(store, config(), "retriever", DAY) is None  # the folder itself is not there yet
    model_folder.save(path, {})
    assert artifacts.find(store, config(), "retriever", DAY) == path
    assert artifacts.require(store, config(), "retriever", DAY, "retriever") == path
    artifacts.forget(store, config(), "retriever", DAY)
    assert artifacts.find(store, config(), "retriever", DAY) is None


def test_a_folder_of_other_settings_is_not_found(tmp_path: Path) -> None:
    """Rules of tonight alone are no other settings of a retriever."""
    store: Any = StubStore(str(tmp_path))
    path = artifacts.folder(store, "retriever", "2024-03-04-abc")
    model_folder.save(path, {})
    artifacts.point(store, config(), "retriever", DAY, path)
    with pytest.raises(DataError, match=r"no retriever as of 2024-03-04 with these settings .* jobs/retriever.py"):
        artifacts.require(store, config(retriever={"linear": {"l2": 7}}), "retriever", DAY, "retriever")
    ruled = config(scenarios={"default": {"where": "item_id <> 'x'"}})
    assert artifacts.find(store, ruled, "retriever", DAY) == path
    # two configurations of one warehouse do not get in each other's way
    other = config(retriever={"linear": {"l2": 7}})
    model_folder.save(f"{path}d", {})
    artifacts.point(store, other, "retriever", DAY, f"{path}d")
    assert [artifacts.find(store, one, "retriever", DAY) for one in (other, config())] == [f"{path}d", path]


def test_pointing_again_writes_nothing(tmp_path: Path) -> None:
    store: Any = StubStore(str(tmp_path))
    path = artifacts.folder(store, "gbdt", "2024-03-04-abc")
    artifacts.point(store, config(), "gbdt", DAY, path)
    (file,) = (tmp_path / "models" / "gbdt").iterdir()
    written = file.stat().st_mtime_ns
    artifacts.point(store, config(), "gbdt", DAY, path)
    assert file.stat().st_mtime_ns == written
    assert file.name.startswith("2024-03-04-") and file.read_text() == "2024-03-04-abc"
