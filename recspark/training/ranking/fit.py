"""Train a night's torch rankers in one launch: what every process of the launch runs; rank 0 writes the models."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.rankers import Task
from recspark.given_features import Coding, FeatureBook, fit_coding, numbers_and_codes
from recspark.histories import HistoryBook
from recspark.models.layers import Inputs, id_rows, look_up
from recspark.models.rankers import network
from recspark.models.rankers.blend import spread
from recspark.models.rankers.spec import Spec
from recspark.training.feed.feed import Batch, ExponentialDecay, Feed
from recspark.training.feed.files import RowFilter, num_rows
from recspark.training.ranking import loop, losses, quantise, saved, transfer
from recspark.training.ranking.job import (
    AS_OF_DAY,
    INTS,
    SCENARIO_AT,
    STEPS,
    STOP_FOLD,
    RankerJob,
    RankerModel,
    Window,
)

log = logging.getLogger("recspark.ranker")

SAMPLE_ROWS = 100_000
SPREAD_ROWS = 32_768
TYPICAL_ROWS = 8192  # by which the inputs of 8-bit layers are scaled
STEPS_AN_EPOCH = 300


class BatchPreparer:
    """Batches of the feed -> model inputs and targets: the columns split; histories, content and given features looked
    up."""

    def __init__(self, features: Sequence[str], tasks: Sequence[Task], windows: Sequence[Window], length: int) -> None:
        self._num_features, self._tasks, self._length = len(features), tuple(tasks), length
        self._histories = HistoryBook({window.day: window.histories for window in windows})
        # The newest date's vectors serve all: content does not change with the date, and the newest has every item.
        self.content = model_folder.open_array(windows[0].bundle, "content")
        folders = {window.day: window.given for window in windows if window.given is not None}
        self._given = FeatureBook(folders) if folders else None
        self.coding: Coding | None = None

    def __call__(self, batch: Batch) -> tuple[Inputs, Tensor]:
        day, scenario, user, item = batch.ints.T
        history = self._histories.block(user, day, self._length)
        inputs = look_up(batch.floats[:, : self._num_features], scenario, item, history, self.content)
        if (given := self.given(batch.ints)) is not None:
            numbers, texts = map(torch.from_numpy, given)
            inputs = replace(inputs, numbers_BN=numbers, texts_BGT=texts.long())
        return inputs, torch.from_numpy(self.targets(batch.floats))

    def given(self, ints: Array) -> tuple[Array, Array] | None:
        """The given features of rows (n, I) of the feed, see `numbers_and_codes`; None without any. The first rows
        decide which texts are known: those of the sample that a network is made from."""
        if self._given is None:
            return None
        day, _, user, item = ints.T
        if self.coding is None:
            self.coding = fit_coding(self._given, user, item, day)
        return numbers_and_codes(self._given, self.coding, user, item, day)

    def targets(self, floats: Array) -> Array:
        """The labels among a batch's float columns, as the loss sees them: float32 (n, T)."""
        labels = floats[:, self._num_features : self._num_features + len(self._tasks)]
        kinds = [task.kind for task in self._tasks]
        losses.check(labels, [task.name for task in self._tasks], kinds)
        return losses.targets(labels, kinds)


def train_all(job: RankerJob) -> dict[str, Any]:
    """Train all models of a job, in order; a model whose folder is there is not trained again.

    Returns: {"models": {name: its summary}}, the same on every rank.
    """
    torch.set_num_threads(job.threads)  # torchrun and Spark set OMP_NUM_THREADS to 1
    device = _device(job)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        done: dict[str, Any] = {}
        for model in job.models:
            done[model.name] = _train_model(job, model, done, device)
        return {"models": done}
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _train_model(job: RankerJob, model: RankerModel, done: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    if model_folder.exists(model.folder):
        return dict(model_folder.read_manifest(model.folder)["training"])
    earlier = done[model.epochs_of] if model.epochs_of else None
    if not _has_rows(job, model) or (earlier and not earlier["rows"]):
        return {"num_epochs": 0, "first_epochs": 0, "rows": 0}
    main = not dist.is_initialized() or dist.get_rank() == 0

    def report(line: str) -> None:
        if main:
            log.info("ranker, %s: %s", model.name, line)

    context = _transfer_context(job, model, earlier, report, device)
    result = transfer.MODES[model.mode](context)
    rows = {"rows": result.feed.num_rows, "reader": result.feed.reader}
    stages = {"first_epochs": result.first_epochs, "target_epoch_schedule": tuple(result.schedule)}
    summary = {**asdict(result.training), **rows, **stages}
    if main:
        manifest = {"training": summary, "spread": _logit_spread(result, context.prepare_batch)}
        if job.settings.int8:
            rounded = _rounded(result, context.prepare_batch)
            valid = context.stop("own")
            if valid is not None:
                manifest["int8"] = _rounding_cost(result.network.cpu(), rounded, valid, context.prepare_batch)
            saved.save(model.folder, rounded, manifest)
        else:
            saved.save(model.folder, result.network, manifest)
        model_folder.remove(f"{model.folder}/{STEPS}")
    if dist.is_initialized():
        dist.barrier()  # no rank looks for the folder before it is complete
    return summary


def _transfer_context(
    job: RankerJob,
    model: RankerModel,
    earlier: Mapping[str, Any] | None,
    report: Callable[[str], None],
    device: torch.device,
) -> transfer.TransferContext:
    """`earlier`: the summary of the model whose epochs are taken; None: stop early, by the users of STOP_FOLD, or by
    all users if there are none or no others."""
    prepare_batch = BatchPreparer(job.features, job.tasks, model.windows, job.settings.history_length)
    settings = loop.LoopSettings(
        seed=job.seed,
        learning_rate=job.settings.learning_rate,
        weight_decay=job.settings.weight_decay,
        max_epochs=earlier["num_epochs"] if earlier else job.settings.max_epochs,
        patience=job.settings.patience,
        loss_weights=tuple(task.loss_weight for task in job.tasks),
        checkpoint_steps=job.checkpoint_steps,
    )

    split = not earlier and all(num_rows(_files(model), row_filters(model, "own", stops)) for stops in (True, False))

    @cache  # a feed keeps the rows it has read
    def feed(part: transfer.Part) -> Feed:
        made = open_feed(job, model, row_filters(model, part, stops=False if split else None))
        size = f"{made.num_rows} rows, {made.num_steps} steps an epoch, {made.reader}"
        report(f"{size}, {torch.get_num_threads()} threads")
        return made

    @cache
    def stop(part: transfer.Part) -> Feed | None:
        return None if earlier else open_feed(job, model, row_filters(model, part, stops=True if split else None))

    return transfer.TransferContext(
        target=model.target,
        feed=feed,
        stop=stop,
        network=lambda rows, width: new_network(job, model, rows, prepare_batch, width),
        prepare_batch=prepare_batch,
        settings=settings,
        first_epochs=earlier["first_epochs"] if earlier else 0,
        schedule=transfer.EpochSchedule(*earlier["target_epoch_schedule"]) if earlier else None,
        folder=f"{model.folder}/{STEPS}",
        report=report,
        device=device,
    )


def row_filters(model: RankerModel, part: transfer.Part, stops: bool | None) -> tuple[RowFilter, ...]:
    """Which rows are a part's; `stops`: of the users by which a training stops, of the others, or (None) of both."""
    chosen = [] if stops is None else [RowFilter(c.FOLD, frozenset({STOP_FOLD}), keep=stops)]
    if model.target is not None and part != "all":
        chosen.append(RowFilter(c.SCENARIO_IDX, frozenset({model.target}), keep=part == "own"))
    return tuple(chosen)


def _has_rows(job: RankerJob, model: RankerModel) -> bool:
    """Are there rows of every part that the mode learns from or stops by?"""
    if model.target is None:
        return True
    parts: tuple[transfer.Part, ...] = ("own",) if model.mode in transfer.OWN_ROWS_ONLY else ("own", "sources")
    sides = (True, False) if model.epochs_of is None else (None,)
    return all(num_rows(_files(model), row_filters(model, part, stops)) for part in parts for stops in sides)


def _files(model: RankerModel) -> list[str]:
    return [file for window in model.windows for file in window.files]


def _typical_rows(
    result: transfer.TransferResult, prepare_batch: loop.PrepareBatch, num_rows: int
) -> tuple[Array, Inputs]:
    """Ids and inputs of some training rows, spread evenly; on the CPU."""
    rows = result.feed.sample(num_rows)
    batch = Batch(rows.ints, rows.floats, np.ones(len(rows), np.float32), len(rows))
    return rows.ints, prepare_batch(batch)[0]


def _logit_spread(result: transfer.TransferResult, prepare_batch: loop.PrepareBatch) -> float:
    """Of the first task's logits within a list; see recspark/models/rankers/blend.py."""
    ids, inputs = _typical_rows(result, prepare_batch, SPREAD_ROWS)
    with torch.inference_mode():
        logits = result.network.cpu().eval()(inputs)[:, 0].double().numpy()
    return spread(ids[:, :3], logits)


def _rounded(result: transfer.TransferResult, prepare_batch: loop.PrepareBatch) -> network.Network:
    """The network in 8 bits."""
    _, inputs = _typical_rows(result, prepare_batch, TYPICAL_ROWS)
    return saved.rounded(result.network, lambda ranker: ranker(inputs))


def _rounding_cost(
    ranker: network.Network, rounded: network.Network, valid: Feed, prepare_batch: loop.PrepareBatch
) -> dict[str, float]:
    """What 8 bits change in the first task, on this rank's part of the rows that stop the training."""
    parts = []
    for batch in valid.batches(0):
        inputs, targets = prepare_batch(batch)
        with torch.inference_mode():
            scores = [model.eval()(inputs)[:, 0].numpy() for model in (ranker, rounded)]
        labelled = (batch.weights > 0) & np.isfinite(targets[:, 0].numpy())
        parts.append([column[labelled] for column in (targets[:, 0].numpy(), batch.ints[:, :3], *scores)])
    labels, lists, *scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    return quantise.cost(labels, lists, *scores)


def batch_size(rows: int) -> int:
    """The power of two from 256 to 8192 that makes about STEPS_AN_EPOCH steps of the rows: few rows are learnt better
    in small batches, many are read faster in large ones."""
    return int(2 ** np.clip(np.round(np.log2(max(rows, 1) / STEPS_AN_EPOCH)), 8, 13))


def open_feed(job: RankerJob, model: RankerModel, filters: Sequence[RowFilter]) -> Feed:
    """This rank's feed of a model's rows that pass all filters."""
    floats = [*job.features, *(f"{c.LABEL}_{task.name}" for task in job.tasks), c.WEIGHT]
    ranked = dist.is_initialized()
    files, half_life = _files(model), job.half_life_days
    return Feed(
        files=files,
        ints=INTS,
        floats=floats,
        batch_size=job.settings.batch_size or batch_size(num_rows(files, filters)),
        seed=job.seed,
        rank=dist.get_rank() if ranked else 0,
        world_size=dist.get_world_size() if ranked else 1,
        weight=c.WEIGHT,
        filters=filters,
        decay=ExponentialDecay(AS_OF_DAY, model.windows[0].day, half_life) if half_life else None,
        reader=job.reader,
    )


def new_network(
    job: RankerJob, model: RankerModel, feed: Feed, preparer: BatchPreparer, width: int = 1
) -> network.Network:
    """An untrained network, its hidden layers `width` times as wide as the settings say."""
    settings, sample = job.settings, feed.sample(SAMPLE_ROWS)
    dense = sample.floats[:, : len(job.features)]
    manifest = model_folder.read_manifest(model.windows[0].bundle)
    scenarios = manifest["scenarios"].values()
    names = [task.name for task in job.tasks]
    before = tuple(names.index(task.given) if task.given else -1 for task in job.tasks)
    counts = np.bincount(sample.ints[:, INTS.index(c.ITEM_IDX)], minlength=len(preparer.content))
    rows_C = id_rows(counts, settings.min_item_rows, settings.item_buckets)
    given = preparer.given(sample.ints)
    coding = preparer.coding
    spec = Spec(
        features=job.features,
        tasks=tuple(names),
        kinds=tuple(task.kind for task in job.tasks),
        num_items=len(counts),
        num_ids=1 + (settings.item_buckets or int(rows_C.max())),
        num_scenarios=max([*scenarios, int(sample.ints[:, SCENARIO_AT].max())]) + 1,
        num_missing=network.num_missing(dense),
        content_dim=preparer.content.shape[1],
        content_parts=tuple(manifest.get("content_parts", ())),
        fusion=settings.fusion,
        embedding_dim=settings.embedding_dim,
        hidden=tuple(width * size for size in settings.hidden),
        history_length=settings.history_length,
        dropout=settings.dropout,
        model=settings.model,
        cross_layers=settings.cross_layers,
        given=before if any(task.given for task in job.tasks) else (),
        task_weighting=settings.task_weighting,
        given_numbers=coding.numbers if coding else (),
        given_texts=coding.texts if coding else (),
        given_known=tuple(map(len, coding.known)) if coding else (),
    )
    ranker = network.build(spec, job.seed)
    ranker.encoder.fit_ids(rows_C)
    if ranker.encoder.given is not None and given is not None and coding is not None:
        ranker.encoder.given.fit(given[0], coding.known)
    ranker.fit(dense, sample.ints[:, SCENARIO_AT], preparer.targets(sample.floats))
    return ranker


def _device(job: RankerJob) -> torch.device:
    if job.use_gpu and torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device
    return torch.device("cpu")
