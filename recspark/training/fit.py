"""Train a night's torch rankers in one launch: what every process of the launch runs.

Every process of the launch holds the job; rank 0 writes the models.
"""

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from recspark import columns as c
from recspark.errors import RecsparkError
from recspark.models.layers import Inputs, look_up
from recspark.models.rankers import network
from recspark.models.rankers.spec import Spec
from recspark.training import checkpoint, loop, losses, quantise, saved
from recspark.training.feed import Batch, Feed, Folds
from recspark.training.histories import HistoryBook
from recspark.training.job import INTS, STEPS, STOP_FOLD, Job, Model, Window

log = logging.getLogger("recspark.ranker")

SAMPLE_ROWS = 100_000
CHECKPOINT_STEPS = 500  # also after every epoch

Tasks = Sequence[tuple[str, str, float]]  # name, kind, loss weight


class LookUp:
    """Batches of the feed -> model inputs and targets: the columns split, histories and content looked up."""

    def __init__(self, features: Sequence[str], tasks: Tasks, windows: Sequence[Window], length: int) -> None:
        self._num_features, self._tasks, self._length = len(features), tasks, length
        self._histories = HistoryBook({window.day: window.histories for window in windows})
        # The newest date's vectors serve all: content does not change with the date, and the newest knows every item.
        self.content = checkpoint.open_array(windows[0].bundle, "content")

    def __call__(self, batch: Batch) -> tuple[Inputs, Tensor]:
        day, scenario, user, item = batch.ints.T
        history = self._histories.block(user, day, self._length)
        inputs = look_up(batch.floats[:, : self._num_features], scenario, item, history, self.content)
        return inputs, torch.from_numpy(self.targets(batch.floats))

    def targets(self, floats: np.ndarray) -> np.ndarray:
        labels = floats[:, self._num_features : self._num_features + len(self._tasks)]
        names, kinds, _ = zip(*self._tasks, strict=True)
        losses.check(labels, names, kinds)
        return losses.targets(labels, kinds)


def run(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Train all models of a job, in order. Returns {"models": {name: {...}}}, or {"error": message}."""
    job = Job.from_json(tree)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    torch.set_num_threads(job.threads)  # torchrun and Spark set OMP_NUM_THREADS to 1
    device = _device(job)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        done: dict[str, Any] = {}
        for model in job.models:
            done[model.name] = _fit(job, model, done, device)
        return {"models": done}
    except RecsparkError as error:
        return {"error": str(error)}
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _fit(job: Job, model: Model, done: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    if checkpoint.exists(model.folder):
        return dict(checkpoint.read_manifest(model.folder)["training"])
    look = LookUp(job.features, job.tasks, model.windows, job.settings["history_length"])
    stops_early = model.epochs_of is None
    feed = _feed(job, model, Folds(c.FOLD, frozenset({STOP_FOLD}), keep=False) if stops_early else None)
    valid = _feed(job, model, Folds(c.FOLD, frozenset({STOP_FOLD}))) if stops_early else None
    ranker = _ranker(job, model, feed, look)
    settings = loop.Settings(
        seed=job.seed,
        learning_rate=job.settings["learning_rate"],
        weight_decay=job.settings["weight_decay"],
        max_epochs=job.settings["max_epochs"] if stops_early else done[str(model.epochs_of)]["num_epochs"],
        patience=job.settings["patience"],
        loss_weights=tuple(weight for _, _, weight in job.tasks),
        checkpoint_steps=job.settings.get("checkpoint_steps", CHECKPOINT_STEPS),
    )
    main = not dist.is_initialized() or dist.get_rank() == 0

    def report(line: str) -> None:
        if main:
            log.info("ranker, %s: %s", model.name, line)

    report(f"{feed.num_rows} rows, {feed.num_steps} steps an epoch, {feed.reader}, {torch.get_num_threads()} threads")
    trained = loop.train(ranker, feed, look, settings, f"{model.folder}/{STEPS}", valid, report, device)
    summary = {**asdict(trained), "rows": feed.num_rows, "reader": feed.reader}
    if main:
        int8 = job.settings["int8"]
        cost = {"int8": _cost(ranker, valid, look, device)} if int8 and valid is not None else {}
        saved.save(model.folder, ranker, {**(job.manifest or {}), "training": summary, **cost}, int8)
        checkpoint.remove(f"{model.folder}/{STEPS}")
    if dist.is_initialized():
        dist.barrier()  # nobody looks for the folder before it is whole
    return summary


def _cost(ranker: network.Network, valid: Feed, look: LookUp, device: torch.device) -> dict[str, float]:
    """What 8 bits change in the first task, on this rank's part of the rows that stop the training."""
    rounded = saved.rounded(ranker).to(device)
    parts = []
    for batch in valid.batches(0):
        inputs, targets = look(batch)
        with torch.inference_mode():
            scores = [model.eval()(inputs.to(device))[:, 0].cpu().numpy() for model in (ranker, rounded)]
        labelled = (batch.weights > 0) & np.isfinite(targets[:, 0].numpy())
        parts.append([column[labelled] for column in (targets[:, 0].numpy(), batch.ints[:, :3], *scores)])
    labels, lists, *scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return quantise.cost(labels, lists, *scores)


def _feed(job: Job, model: Model, folds: Folds | None) -> Feed:
    floats = [*job.features, *(f"{c.LABEL}_{name}" for name, _, _ in job.tasks), c.WEIGHT]
    ranked = dist.is_initialized()
    return Feed(
        files=[file for window in model.windows for file in window.files],
        ints=INTS,
        floats=floats,
        batch_size=job.settings["batch_size"],
        seed=job.seed,
        rank=dist.get_rank() if ranked else 0,
        world_size=dist.get_world_size() if ranked else 1,
        weight=c.WEIGHT,
        folds=folds,
        reader=job.reader,  # type: ignore[arg-type]  # checked by the configuration
    )


def _ranker(job: Job, model: Model, feed: Feed, look: LookUp) -> network.Network:
    sample = feed.sample(SAMPLE_ROWS)
    dense = sample.floats[:, : len(job.features)]
    scenarios = checkpoint.read_manifest(model.windows[0].bundle)["scenarios"].values()
    tasks = tuple(name for name, _, _ in job.tasks)
    spec = Spec(
        features=job.features,
        tasks=tasks,
        kinds=tuple(kind for _, kind, _ in job.tasks),
        num_items=len(look.content),
        num_scenarios=max([*scenarios, int(sample.ints[:, 1].max())]) + 1,
        num_missing=network.num_missing(dense),
        content_dim=look.content.shape[1],
        embedding_dim=job.settings["embedding_dim"],
        hidden=tuple(job.settings["hidden"]),
        history_length=job.settings["history_length"],
        dropout=job.settings["dropout"],
        model=job.settings["model"],
        cross_layers=job.settings["cross_layers"],
        given=tuple(tasks.index(job.given[task]) if task in job.given else -1 for task in tasks) if job.given else (),
        task_weighting=job.settings["task_weighting"],
    )
    ranker = network.build(spec, job.seed)
    ranker.fit(dense, sample.ints[:, 1], look.targets(sample.floats))
    return ranker


def _device(job: Job) -> torch.device:
    if job.use_gpu and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")
