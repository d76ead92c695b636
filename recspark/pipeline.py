"""A night: its stages in order, under the warehouse's lease."""

import importlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date

from recspark.config.schema import Config
from recspark.errors import ConfigError
from recspark.session import get_session
from recspark.summary import Summary

log = logging.getLogger(__name__)

# noun -> the module whose refresh() makes it, in the order of a night. Imported when run, so that a table job
# does not wait for torch.
STAGES = {
    "interactions": "recspark.stages.interactions",
    "items": "recspark.stages.items",
    "item_facts": "recspark.stages.item_facts",
    "text_adapter": "recspark.stages.text_adapter",
    "item_embeddings": "recspark.stages.item_embeddings.stage",
    "retriever": "recspark.stages.retriever.stage",
    "candidates": "recspark.stages.candidates.stage",
    "training_examples": "recspark.stages.training_examples",
    "ranker": "recspark.stages.ranker.stage",
    "model_metrics": "recspark.stages.model_metrics.stage",
    "recommendations": "recspark.stages.recommendations",
}
# These run before there is tonight's adapter, or need none.
WITHOUT_VECTORS = ("interactions", "items", "item_facts", "text_adapter", "maintenance")
MAINTENANCE = {"maintenance": "recspark.stages.maintenance"}

Advance = Callable[[str], None]  # is told the name of each stage as it begins
Finished = Callable[[Summary, float], None]  # is told what a stage has done, and its seconds


def choose(stages: Sequence[str], from_: str | None, only: str | None) -> list[str]:
    """The stages that --from and --only leave. Raises ConfigError for a stage that does not exist."""
    for name in (from_, only):
        if name is not None and name not in stages:
            raise ConfigError(f"no stage `{name}`; the stages in order: {', '.join(stages)}")
    if only is not None:
        return [only]
    return list(stages[list(stages).index(from_) :]) if from_ else list(stages)


def execute(
    stages: Sequence[str],
    config: Config,
    run_date: date,
    run_id: str,
    force: bool,
    advance: Advance,
    finished: Finished,
) -> None:
    """Run the stages in order under the warehouse's lease. Raises what a stage raises; what was done before stays."""
    spark, owned = get_session(config.spark)
    from recspark.stages import recommendations, text_adapter
    from recspark.warehouse.lease import hold
    from recspark.warehouse.store import Store

    store = Store(spark, config, run_id)
    try:
        with hold(config.warehouse, run_id) as held:
            recommendations.repair(store)
            for name in stages:
                advance(name)
                held.check()  # a machine that slept may have lost the warehouse to another run
                began = time.monotonic()
                if name not in WITHOUT_VECTORS:
                    config = text_adapter.resolved(store, config, run_date)
                module = importlib.import_module({**STAGES, **MAINTENANCE}[name])
                summary = replace(module.refresh(store, config, run_date, force), stage=name)
                finished(summary, time.monotonic() - began)
    finally:
        if owned:  # a notebook's or a test's session is not ours to stop
            spark.stop()
