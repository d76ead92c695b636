"""One planted world with its retriever bundle, and one hand-made warehouse, for all tests of this folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from recspark.config.schema import Config, ScenarioRule, Scenarios
from recspark.encoders.weights import locate
from recspark.stages.retriever import stage as retriever
from recspark.stages.retriever.bundle import Bundle, open_bundle
from recspark.summary import Summary
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from tests import world
from tests.stages import hand_made


class PlantedNight(NamedTuple):
    planted: world.World
    store: Store
    config: Config
    summary: Summary  # of the retriever stage
    path: str  # of the bundle
    bundle: Bundle


@pytest.fixture(scope="session")
def planted_night(spark, tmp_path_factory) -> PlantedNight:
    """The poor scenario lists its own items only, and is too small for a group of its own."""
    scenarios = Scenarios(min_users=20, overrides={world.POOR: ScenarioRule(items="own")})
    config = Config.model_validate(
        {
            "warehouse": str(tmp_path_factory.mktemp("planted")),
            "source": {"interactions": world.SOURCE},
            "scenarios": scenarios.model_dump(),
            "retriever": {"linear": {"l2": 5.0}},
            "candidates": {"depth": 4, "block_users": 7},
            "recommendations": {"k": 3},
        }
    )
    store = Store(spark, config, "run")
    planted = world.tastes()
    world.write(planted, store, locate(config.item_embeddings.encoder).version)
    summary = retriever.refresh(store, config, world.AS_OF)
    path = artifacts.require(store, config, "retriever", world.AS_OF, "retriever")
    return PlantedNight(planted, store, config, summary, path, open_bundle(path))


@pytest.fixture(scope="session")
def copy_hand_made(spark, tmp_path_factory) -> Callable[[], Path]:
    """Gives a copy of the warehouse of tests/stages/hand_made.py, which is built once."""
    made = tmp_path_factory.mktemp("hand-made") / "w"
    hand_made.build(spark, made)
    return lambda: Path(shutil.copytree(made, tmp_path_factory.mktemp("copy") / "w"))
