"""One planted world with its retriever bundle, for all tests of this folder."""

from typing import NamedTuple

import pytest

from recspark.config.schema import Config, ScenarioRule, Scenarios
from recspark.encoders.weights import locate
from recspark.stages.retriever import stage as retriever
from recspark.stages.retriever.stage import Bundle
from recspark.summary import Summary
from recspark.warehouse.store import Store
from tests import world

SOURCE = {"format": "parquet", "paths": ["none"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}


class Night(NamedTuple):
    planted: world.World
    store: Store
    config: Config
    summary: Summary  # of the retriever stage
    path: str  # of the bundle
    bundle: Bundle


@pytest.fixture(scope="session")
def night(spark, tmp_path_factory) -> Night:
    """The poor scenario lists its own items only, and is too small for a group of its own."""
    scenarios = Scenarios(min_users=20, overrides={world.POOR: ScenarioRule(items="own")})
    config = Config.model_validate(
        {
            "warehouse": str(tmp_path_factory.mktemp("planted")),
            "source": {"interactions": SOURCE},
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
    path = retriever.folder(store, config, world.AS_OF)
    return Night(planted, store, config, summary, path, retriever.open_bundle(path))
