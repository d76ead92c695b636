"""Train a bundle's retrievers on the shards of its histories: what the one process of a launch runs. Needs no Spark.

Memory: all positive events of the shards, 28 bytes each, beside the model.
"""

import importlib
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np

from recspark import model_folder
from recspark.arrays import Array
from recspark.config.retrievers import Retriever, Sequence
from recspark.histories import Histories, keep, take
from recspark.metrics import ndcg_at_k
from recspark.models.retrievers.catalogue import Catalogue
from recspark.training.retrieval.job import RetrieverJob, RetrieverTask

log = logging.getLogger("recspark.retriever")

STEPS = "steps"  # folder of a training's checkpoints, inside the model's
MAX_VALIDATION_USERS = 1000  # users whose newest event decides when the training of `sequence` stops


def train_all(job: RetrieverJob) -> dict[str, Any]:
    """Train and save `<bundle>/<name>` for every task.

    Returns: {"trained": number of models}.
    Raises: DataError if there is nothing to learn from, TrainingError if a training diverges.
    """
    for task in job.tasks:
        train_one(task, job.settings, job.seed)
    return {"trained": len(job.tasks)}


def train_one(task: RetrieverTask, settings: Retriever, seed: int) -> None:
    """Train one retriever and save it."""
    module = importlib.import_module(f"recspark.models.retrievers.{task.name}")
    histories = read(task.histories)
    content_ID = np.array(model_folder.open_array(task.bundle, "content"))
    num_scenarios = max(task.scenarios.values(), default=0) + 1
    parts = tuple(model_folder.read_manifest(task.bundle)["content_parts"])
    catalogue = Catalogue(len(content_ID), num_scenarios, *((content_ID, parts) if content_ID.any() else ()))
    own = getattr(settings, task.name)
    target = None
    if isinstance(own, Sequence):
        # a scenario without an event yet belongs to the group of small ones
        target = task.scenarios.get(own.target, 0) if own.target else None
        model = train_sequence(task, own, histories, catalogue, target, seed)
    else:
        model = module.fit(histories, catalogue, own, seed)
    manifest, arrays = module.to_arrays(model)
    stored = {"model": manifest, "arrays": sorted(arrays), "target": target}
    model_folder.save(f"{task.bundle}/{task.name}", stored, arrays)
    model_folder.remove(f"{task.bundle}/{task.name}/{STEPS}")
    log.info("retriever: %s of %s events trained", task.name, len(histories.item_idx))


def train_sequence(
    task: RetrieverTask, settings: Sequence, histories: Histories, catalogue: Catalogue, target: int | None, seed: int
) -> Any:
    """Train `sequence` until NDCG@10 of the validation users' newest events, which it does not see, stops improving.

    After a kill it resumes from its last epoch.
    """
    from recspark.models.retrievers import sequence  # here: it loads torch
    from recspark.training.retrieval import sequence as sequence_training

    known, validation = hold_out(histories, np.random.default_rng(seed), target)
    scenario, time, truth = (
        getattr(histories, name)[validation.newest] for name in ("scenario_idx", "time", "item_idx")
    )
    shortened = take(known, validation.users)

    def ndcg(model: sequence.Model) -> float:
        found = np.nan_to_num(sequence.scores(model, shortened, scenario, time), nan=-np.inf)
        own = found[np.arange(len(truth)), truth][:, None]
        place = (found > own).sum(axis=1)
        relevance = (np.arange(10) == place[:, None]).astype(np.float64).ravel()
        return float(ndcg_at_k(relevance, 10 * np.arange(len(truth) + 1), np.ones(len(truth), np.int64), 10).mean())

    folder = f"{task.bundle}/{task.name}/{STEPS}"
    validate = ndcg if len(truth) else _no_validation
    plan = sequence_training.Plan(target)
    return sequence_training.train(known, catalogue, settings, plan, seed, folder, validate, log.info)


def _no_validation(model: Any) -> float:
    """The figure without validation users: the first model stays the best one."""
    return 0.0


@dataclass(frozen=True)
class Validation:
    """`users` (V,): rows of the histories. `newest` (V,): the row of each user's newest event."""

    users: Array
    newest: Array


def hold_out(histories: Histories, rng: np.random.Generator, target: int | None) -> tuple[Histories, Validation]:
    """The histories without the newest event of the validation users.

    These are a tenth, at most MAX_VALIDATION_USERS, of the users with three events and more; with a `target`, of those
    whose newest event is in that scenario.
    """
    h = histories
    newest = h.offsets[1:] - 1
    able = np.diff(h.offsets) > 2
    if target is not None:
        able[able] = h.scenario_idx[newest[able]] == target
    users = np.flatnonzero(able)
    users = np.sort(rng.choice(users, min(MAX_VALIDATION_USERS, len(users) // 10), replace=False))
    kept = np.ones(len(h.item_idx), dtype=bool)
    kept[newest[users]] = False
    return keep(h, kept), Validation(users, newest[users])


def read(folder: str) -> Histories:
    """All users of a histories folder with a positive event, in order of user_idx."""
    manifest = model_folder.read_manifest(folder)
    folders = [f"{folder}/shard-{shard}" for shard in manifest["shards"]]
    size = np.concatenate([np.zeros(0, np.int64), *(np.diff(model_folder.open_array(f, "offsets")) for f in folders)])

    def column(name: str, dtype: type[np.generic]) -> Array:
        return np.concatenate([np.zeros(0, dtype), *(model_folder.open_array(f, name) for f in folders)])

    offsets = np.concatenate(([0], np.cumsum(size[size > 0])))
    ones, unknown = np.ones(offsets[-1], np.float32), np.full(offsets[-1], np.nan, np.float32)
    return Histories(
        offsets,
        column("item_idx", np.int32),
        column("scenario_idx", np.int32),
        column("time", np.float64),
        weight=ones,
        value=unknown,
        price=unknown,
    )
