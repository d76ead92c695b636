"""Train a night's torch rankers in one launch: what every process of the launch runs.

Every process of the launch holds the job; rank 0 writes the models.
"""

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.errors import RecsparkError
from recspark.histories import HistoryBook
from recspark.models.layers import Inputs, id_rows, look_up
from recspark.models.rankers import network
from recspark.models.rankers.blend import spread
from recspark.models.rankers.spec import Spec
from recspark.training.feed.feed import Batch, Fading, Feed, Folds, num_rows
from recspark.training.ranking import loop, losses, quantise, saved, transfer
from recspark.training.ranking.job import AS_OF_DAY, INTS, STEPS, STOP_FOLD, Job, Model, Window

log = logging.getLogger("recspark.ranker")

SAMPLE_ROWS = 100_000
SPREAD_ROWS = 32_768
TYPICAL_ROWS = 8192  # by which the inputs of 8-bit layers are scaled
STEPS_AN_EPOCH = 300
CHECKPOINT_STEPS = 500  # also after every epoch

Tasks = Sequence[tuple[str, str, float]]  # name, kind, loss weight


class LookUp:
    """Batches of the feed -> model inputs and targets: the columns split, histories and content looked up."""

    def __init__(self, features: Sequence[str], tasks: Tasks, windows: Sequence[Window], length: int) -> None:
        self._num_features, self._tasks, self._length = len(features), tasks, length
        self._histories = HistoryBook({window.day: window.histories for window in windows})
        # The newest date's vectors serve all: content does not change with the date, and the newest knows every item.
        self.content = model_folder.open_array(windows[0].bundle, "content")

    def __call__(self, batch: Batch) -> tuple[Inputs, Tensor]:
        day, scenario, user, item = batch.ints.T
        history = self._histories.block(user, day, self._length)
        inputs = look_up(batch.floats[:, : self._num_features], scenario, item, history, self.content)
        return inputs, torch.from_numpy(self.targets(batch.floats))

    def targets(self, floats: Array) -> Array:
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
    if model_folder.exists(model.folder):
        return dict(model_folder.read_manifest(model.folder)["training"])
    earlier = done[model.epochs_of] if model.epochs_of else None
    if not _possible(job, model) or (earlier and not earlier["rows"]):
        return {"num_epochs": 0, "first_epochs": 0, "rows": 0}
    main = not dist.is_initialized() or dist.get_rank() == 0

    def report(line: str) -> None:
        if main:
            log.info("ranker, %s: %s", model.name, line)

    ground = _ground(job, model, earlier, report, device)
    learnt = transfer.MODES[model.mode](ground)
    rows = {"rows": learnt.feed.num_rows, "reader": learnt.feed.reader}
    summary = {**asdict(learnt.trained), **rows, "first_epochs": learnt.first_epochs, "pace": learnt.pace}
    if main:
        manifest = {**(job.manifest or {}), "training": summary, "spread": _spread(learnt, ground.look)}
        if job.settings["int8"]:
            small = _rounded(learnt, ground.look)
            valid = ground.stop("own")
            cost = {"int8": _cost(learnt.network.cpu(), small, valid, ground.look)} if valid is not None else {}
            saved.save(model.folder, small, {**manifest, **cost})
        else:
            saved.save(model.folder, learnt.network, manifest)
        model_folder.remove(f"{model.folder}/{STEPS}")
    if dist.is_initialized():
        dist.barrier()  # nobody looks for the folder before it is whole
    return summary


def _ground(
    job: Job,
    model: Model,
    earlier: Mapping[str, Any] | None,
    report: Callable[[str], None],
    device: torch.device,
) -> transfer.Ground:
    """`earlier`: the summary of the model whose epochs are taken; None: stop early."""
    look = LookUp(job.features, job.tasks, model.windows, job.settings["history_length"])
    settings = loop.Settings(
        seed=job.seed,
        learning_rate=job.settings["learning_rate"],
        weight_decay=job.settings["weight_decay"],
        max_epochs=earlier["num_epochs"] if earlier else job.settings["max_epochs"],
        patience=job.settings["patience"],
        loss_weights=tuple(weight for _, _, weight in job.tasks),
        checkpoint_steps=job.settings.get("checkpoint_steps", CHECKPOINT_STEPS),
    )

    @cache  # a feed keeps the rows it has read
    def feed(part: transfer.Part) -> Feed:
        made = _feed(job, model, folds(model, part, stops=None if earlier else False))
        place = f"{made.num_rows} rows, {made.num_steps} steps an epoch, {made.reader}"
        report(f"{place}, {torch.get_num_threads()} threads")
        return made

    @cache
    def stop(part: transfer.Part) -> Feed | None:
        return None if earlier else _feed(job, model, folds(model, part, stops=True))

    return transfer.Ground(
        target=model.target,
        feed=feed,
        stop=stop,
        network=lambda rows, width: _ranker(job, model, rows, look, width),
        look=look,
        settings=settings,
        first_epochs=earlier["first_epochs"] if earlier else 0,
        pace=tuple(earlier["pace"]) if earlier else None,
        folder=f"{model.folder}/{STEPS}",
        report=report,
        device=device,
    )


def folds(model: Model, part: transfer.Part, stops: bool | None) -> tuple[Folds, ...]:
    """Which rows are a part's; `stops`: of the users by which a training stops, of the others, or (None) of both."""
    chosen = [] if stops is None else [Folds(c.FOLD, frozenset({STOP_FOLD}), keep=stops)]
    if model.target is not None and part != "all":
        chosen.append(Folds(c.SCENARIO_IDX, frozenset({model.target}), keep=part == "own"))
    return tuple(chosen)


def _possible(job: Job, model: Model) -> bool:
    """Are there rows of every part that the mode learns from or stops by?"""
    if model.target is None:
        return True
    files = [file for window in model.windows for file in window.files]
    parts: tuple[transfer.Part, ...] = ("own",) if model.mode in transfer.OWN_ROWS_ONLY else ("own", "sources")
    sides = (True, False) if model.epochs_of is None else (None,)
    return all(num_rows(files, folds(model, part, stops)) for part in parts for stops in sides)


def _typical(learnt: transfer.Learnt, look: LookUp, num_rows: int) -> tuple[Array, Inputs]:
    """Ids and inputs of some training rows, spread evenly; on the CPU."""
    rows = learnt.feed.sample(num_rows)
    batch = Batch(rows.ints, rows.floats, np.ones(len(rows), np.float32), len(rows))
    return rows.ints, look(batch)[0]


def _spread(learnt: transfer.Learnt, look: LookUp) -> float:
    """Of the first task's logits within a list; see recspark/models/rankers/blend.py."""
    ids, inputs = _typical(learnt, look, SPREAD_ROWS)
    with torch.inference_mode():
        logits = learnt.network.cpu().eval()(inputs)[:, 0].double().numpy()
    return spread(ids[:, :3], logits)


def _rounded(learnt: transfer.Learnt, look: LookUp) -> network.Network:
    _, inputs = _typical(learnt, look, TYPICAL_ROWS)
    return saved.rounded(learnt.network, lambda ranker: ranker(inputs))


def _cost(ranker: network.Network, rounded: network.Network, valid: Feed, look: LookUp) -> dict[str, float]:
    """What 8 bits change in the first task, on this rank's part of the rows that stop the training."""
    parts = []
    for batch in valid.batches(0):
        inputs, targets = look(batch)
        with torch.inference_mode():
            scores = [model.eval()(inputs)[:, 0].numpy() for model in (ranker, rounded)]
        labelled = (batch.weights > 0) & np.isfinite(targets[:, 0].numpy())
        parts.append([column[labelled] for column in (targets[:, 0].numpy(), batch.ints[:, :3], *scores)])
    labels, lists, *scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return quantise.cost(labels, lists, *scores)


def batch_size(rows: int) -> int:
    """The power of two that makes about STEPS_AN_EPOCH of them: few rows are learnt better in small batches, many are
    read faster in large ones."""
    return int(2 ** np.clip(np.round(np.log2(max(rows, 1) / STEPS_AN_EPOCH)), 8, 13))


def _feed(job: Job, model: Model, chosen: Sequence[Folds]) -> Feed:
    floats = [*job.features, *(f"{c.LABEL}_{name}" for name, _, _ in job.tasks), c.WEIGHT]
    ranked = dist.is_initialized()
    files = [file for window in model.windows for file in window.files]
    return Feed(
        files=files,
        ints=INTS,
        floats=floats,
        batch_size=job.settings["batch_size"] or batch_size(num_rows(files, chosen)),
        seed=job.seed,
        rank=dist.get_rank() if ranked else 0,
        world_size=dist.get_world_size() if ranked else 1,
        weight=c.WEIGHT,
        folds=chosen,
        fading=Fading(AS_OF_DAY, model.windows[0].day, job.half_life_days) if job.half_life_days else None,
        reader=job.reader,  # type: ignore[arg-type]  # checked by the configuration
    )


def _ranker(job: Job, model: Model, feed: Feed, look: LookUp, width: int = 1) -> network.Network:
    """A fresh one, its hidden layers `width` times as wide as the settings say."""
    sample = feed.sample(SAMPLE_ROWS)
    dense = sample.floats[:, : len(job.features)]
    manifest = model_folder.read_manifest(model.windows[0].bundle)
    scenarios = manifest["scenarios"].values()
    tasks = tuple(name for name, _, _ in job.tasks)
    counts = np.bincount(sample.ints[:, INTS.index(c.ITEM_IDX)], minlength=len(look.content))
    rows_C = id_rows(counts, job.settings["min_item_rows"], job.settings["item_buckets"])
    spec = Spec(
        features=job.features,
        tasks=tasks,
        kinds=tuple(kind for _, kind, _ in job.tasks),
        num_items=len(counts),
        num_ids=1 + (job.settings["item_buckets"] or int(rows_C.max())),
        num_scenarios=max([*scenarios, int(sample.ints[:, 1].max())]) + 1,
        num_missing=network.num_missing(dense),
        content_dim=look.content.shape[1],
        content_parts=tuple(manifest.get("content_parts", ())),
        fusion=job.settings["fusion"],
        embedding_dim=job.settings["embedding_dim"],
        hidden=tuple(width * size for size in job.settings["hidden"]),
        history_length=job.settings["history_length"],
        dropout=job.settings["dropout"],
        model=job.settings["model"],
        cross_layers=job.settings["cross_layers"],
        given=tuple(tasks.index(job.given[task]) if task in job.given else -1 for task in tasks) if job.given else (),
        task_weighting=job.settings["task_weighting"],
    )
    ranker = network.build(spec, job.seed)
    ranker.encoder.fit_ids(rows_C)
    ranker.fit(dense, sample.ints[:, 1], look.targets(sample.floats))
    return ranker


def _device(job: Job) -> torch.device:
    if job.use_gpu and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")
