"""Where the stages that read features look for them. No Spark: a stub store."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from recspark import model_folder
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.warehouse import artifacts
from recspark.warehouse.given_features import NOUN, folder_of

DAY = date(2024, 3, 4)


@dataclass(frozen=True)
class StubStore:
    warehouse: str

    def models(self, noun: str) -> str:
        return f"{self.warehouse}/models/{noun}"


def config(**users: Any) -> Config:
    place = {"format": "parquet", "paths": ["x"], "user_id": "u"}
    events = {**place, "scenario": "s", "item_id": "i", "event_time": "t"}
    source = {"interactions": events, **({"users": {**place, **users}} if users else {})}
    return Config.model_validate({"warehouse": "w", "source": source})


def age(sql: str = "age") -> dict[str, Any]:
    return {"features": {"age": {"kind": "number", "sql": sql}}}


def test_without_a_feature_there_is_no_folder(tmp_path: Path) -> None:
    store: Any = StubStore(str(tmp_path))
    assert folder_of(store, config(), DAY) is None
    assert folder_of(store, config(scenario="'home'"), DAY) is None


def test_the_folder_of_a_date_is_that_of_these_features(tmp_path: Path) -> None:
    """Other keys of the source do not matter; another expression does."""
    store: Any = StubStore(str(tmp_path))
    with pytest.raises(DataError, match=r"no given_features as of 2024-03-04 .* run jobs/given_features\.py"):
        folder_of(store, config(**age()), DAY)
    path = artifacts.folder(store, NOUN, "2024-03-04-abc")
    model_folder.save(path, {})
    artifacts.point(store, config(**age()), NOUN, DAY, path)
    assert folder_of(store, config(**age()), DAY) == path
    assert folder_of(store, config(**age(), scenario="'home'", where="country = 'DE'"), DAY) == path
    with pytest.raises(DataError):
        folder_of(store, config(**age("2024 - born")), DAY)
