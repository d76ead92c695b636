"""Train a bundle's retrievers on histories' shards: what the one process of a launch runs. Needs no Spark.

Memory: all positive events of the shards, 28 bytes each, beside the model.
"""

import importlib
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from recspark import model_folder
from recspark.arrays import Array
from recspark.errors import RecsparkError
from recspark.histories import Histories, keep, take
from recspark.metrics import ndcg_at_k
from recspark.models.retrievers.catalogue import Catalogue

log = logging.getLogger("recspark.retriever")

TRAINED = ("matrix_factorization", "sequence", "content_towers", "content_map")
STEPS = "steps"  # folder of a training's checkpoints, inside the model's
JUDGES = 1000  # users whose newest event stops the training of `sequence`


@dataclass(frozen=True)
class Task:
    """One retriever of one date: its `name`, the bundle and the histories' folder, raw scenario -> scenario_idx."""

    name: str
    bundle: str
    histories: str
    scenarios: dict[str, int]


@dataclass(frozen=True)
class Job:
    """`settings`: name -> config.retriever.<name>."""

    tasks: tuple[Task, ...]
    settings: dict[str, dict[str, Any]]
    seed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(tree: Mapping[str, Any]) -> "Job":
        return Job(tuple(Task(**task) for task in tree["tasks"]), dict(tree["settings"]), tree["seed"])


def run(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Train and save `<bundle>/<name>` for every task. Returns {"trained": number}, or {"error": message}."""
    job = Job.from_json(tree)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        for task in job.tasks:
            fit(task, job.settings[task.name], job.seed)
        return {"trained": len(job.tasks)}
    except RecsparkError as error:
        return {"error": str(error)}


def fit(task: Task, settings: Mapping[str, Any], seed: int) -> None:
    """Train one and save it. Raises DataError when there is nothing to learn from, TrainingError when it diverges."""
    module = importlib.import_module(f"recspark.models.retrievers.{task.name}")
    histories = read(task.histories)
    content_ID = np.array(model_folder.open_array(task.bundle, "content"))
    num_scenarios = max(task.scenarios.values(), default=0) + 1
    parts = tuple(model_folder.read_manifest(task.bundle)["content_parts"])
    catalogue = Catalogue(len(content_ID), num_scenarios, *((content_ID, parts) if content_ID.any() else ()))
    target = None
    if task.name == "sequence":
        # a scenario without an event yet belongs to the group of small ones
        target = task.scenarios.get(settings["target"], 0) if settings["target"] else None
        model = fit_sequence(task, settings, histories, catalogue, target, seed)
    else:
        model = module.fit(histories, catalogue, module.Settings(**settings), seed)
    manifest, arrays = module.to_arrays(model)
    stored = {"model": manifest, "arrays": sorted(arrays), "target": target}
    model_folder.save(f"{task.bundle}/{task.name}", stored, arrays)
    model_folder.remove(f"{task.bundle}/{task.name}/{STEPS}")
    log.info("retriever: %s of %s events trained", task.name, len(histories.item_idx))


def fit_sequence(
    task: Task, settings: Mapping[str, Any], histories: Histories, catalogue: Catalogue, target: int | None, seed: int
) -> Any:
    """Stopped by NDCG@10 of the newest event of some users, which the training does not see; after a kill it goes on
    from its last epoch."""
    from recspark.models.retrievers import sequence
    from recspark.training.retrieval import sequence as sequence_training

    rest = {name: value for name, value in settings.items() if name not in ("mode", "target")}
    known, asked = hold_out(histories, np.random.default_rng(seed), target)
    scenario, time, truth = (getattr(histories, name)[asked.last] for name in ("scenario_idx", "time", "item_idx"))
    practice = take(known, asked.users)

    def ndcg(model: sequence.Model) -> float:
        found = np.nan_to_num(sequence.scores(model, practice, scenario, time), nan=-np.inf)
        own = found[np.arange(len(truth)), truth][:, None]
        place = (found > own).sum(axis=1)
        relevance = (np.arange(10) == place[:, None]).astype(np.float64).ravel()
        return float(ndcg_at_k(relevance, 10 * np.arange(len(truth) + 1), np.ones(len(truth), np.int64), 10).mean())

    plan = sequence_training.Plan(mode=settings["mode"], target=target, every=2, patience=2)
    folder = f"{task.bundle}/{task.name}/{STEPS}"
    return sequence_training.train(
        known, catalogue, sequence.Settings(**rest), plan, seed, folder, ndcg if len(truth) else _never, log.info
    )


def _never(model: Any) -> float:
    """Nobody has two events: nothing stops the training before its last epoch."""
    return 0.0


@dataclass(frozen=True)
class HeldOut:
    """`users` (J,) rows of the histories, and their newest events `last` (J,)."""

    users: Array
    last: Array


def hold_out(histories: Histories, rng: np.random.Generator, target: int | None) -> tuple[Histories, HeldOut]:
    """The histories without the newest event of at most JUDGES users, a tenth, who have three and more; with a
    `target`, of users whose newest event is there."""
    h = histories
    last = h.offsets[1:] - 1
    able = np.diff(h.offsets) > 2
    if target is not None:
        able[able] = h.scenario_idx[last[able]] == target
    users = np.flatnonzero(able)
    users = np.sort(rng.choice(users, min(JUDGES, len(users) // 10), replace=False))
    kept = np.ones(len(h.item_idx), dtype=bool)
    kept[last[users]] = False
    return keep(h, kept), HeldOut(users, last[users])


def read(folder: str) -> Histories:
    """All users of a histories folder that have a positive event, in order of user_idx."""
    manifest = model_folder.read_manifest(folder)
    folders = [f"{folder}/shard-{shard}" for shard in manifest["shards"]]
    size = np.concatenate([np.zeros(0, np.int64), *(np.diff(model_folder.open_array(f, "offsets")) for f in folders)])
    kinds = {"item_idx": np.int32, "scenario_idx": np.int32, "time": np.float64}
    columns = (
        np.concatenate([np.zeros(0, kind), *(model_folder.open_array(f, name) for f in folders)])
        for name, kind in kinds.items()
    )
    offsets = np.concatenate(([0], np.cumsum(size[size > 0])))
    ones, unknown = np.ones(offsets[-1], np.float32), np.full(offsets[-1], np.nan, np.float32)
    return Histories(offsets, *columns, ones, unknown, unknown)
