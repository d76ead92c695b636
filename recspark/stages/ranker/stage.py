"""ranker: the models that order candidates, learnt from past nights. Two kinds (torch, LightGBM), each in two copies.

`evaluated` learns from the windows that closed before the newest one opens, stops early on a tenth of its users, and is
tested on the newest window (model_metrics). `published` learns from all of them, as long as `evaluated` did.
`ranker.transfer` adds torch rankers of one scenario each, learnt with the help of the others or without.

A folder a set of windows: <warehouse>/models/ranker/<newest window>-<fingerprint>/{evaluated,published}/{ranker,gbdt};
there also ranker_<transfer>/<scenario_idx>.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from pyspark.sql import SparkSession

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.features import features_of
from recspark.stages.launch import launch, threads
from recspark.stages.retriever import stage as retriever
from recspark.summary import Summary
from recspark.tables import histories as histories_table
from recspark.tables import training_examples
from recspark.training.feed.feed import read_users
from recspark.training.ranking import job
from recspark.warehouse.store import Store
from recspark.windows import as_of_day, closed_windows, fading

log = logging.getLogger(__name__)

EVALUATED, PUBLISHED = "evaluated", "published"
RANKER, GBDT = "ranker", "gbdt"
BLEND = "blend"  # of these two; nothing to train
JOINT, ALONE, AUGMENT = "joint", "alone", "augment"  # transfers; the last two are none


@dataclass(frozen=True)
class Examples:
    """One closed window that has examples, at the pinned version of their table."""

    as_of: date
    fingerprint: str
    files: tuple[str, ...]
    bundle: str


def examples(store: Store, config: Config, run_date: date) -> list[Examples]:
    """The closed windows with examples, newest first. Raises DataError when there is none."""
    settings = config.training_examples
    target = training_examples.table(settings.tasks)
    found = []
    for as_of in closed_windows(run_date, settings.label_days, settings.num_windows):
        stamp = store.stamp(target, as_of=as_of)
        if stamp is None:
            continue
        files = tuple(store.files(target, store.version(target), {c.AS_OF: as_of}))
        if files:
            found.append(Examples(as_of, stamp["fingerprint"], files, retriever.folder(store, config, as_of)))
    if not found:
        raise DataError(
            f"no training examples before {run_date} in {store.name(target.noun)}; run jobs/training_examples.py first "
            f"(a window of {settings.label_days} days must have closed)"
        )
    return found


def folder(store: Store, config: Config, found: list[Examples]) -> str:
    """Where the models of these windows lie; another night with the same windows finds them again."""
    settings = config.digest(RANKER, GBDT, "training_examples", "seed")
    # the bundle's own name says what is in it; where the warehouse lies must not matter
    inputs = [(window.fingerprint, window.bundle.rsplit("/", 1)[-1]) for window in found]
    return f"{store.models(RANKER)}/{found[0].as_of}-{store.fingerprint(settings, *inputs)}"


def mode_of(transfer: str) -> str:
    """What can order lists, of an entry of `ranker.transfer`."""
    return RANKER if transfer == JOINT else f"{RANKER}_{transfer}"


def modes(config: Config) -> tuple[str, ...]:
    """All that are learnt, and the blend."""
    return (*(mode_of(transfer) for transfer in config.ranker.transfer), GBDT, BLEND)


def transferring(config: Config) -> tuple[str, ...]:
    """The torch modes that learn a scenario's ranking from other scenarios' rows."""
    return tuple(mode_of(transfer) for transfer in config.ranker.transfer if transfer not in (ALONE, AUGMENT))


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Train both kinds of model, and write the histories that scoring needs tonight and on the newest window.

    Raises DataError without examples, TrainingError when a training diverged or lost a process.
    """
    found = examples(store, config, run_date)
    target = folder(store, config, found)
    histories = {w.as_of: histories_table.ensure_shards(store, config, w.as_of, w.bundle) for w in found}
    if model_folder.exists(target) and not force:
        return Summary(RANKER, skipped=True, note=f"windows {found[-1].as_of} to {found[0].as_of} have their models")
    if force:
        model_folder.remove(target)
    began = time.monotonic()
    neural = _train_torch(store.spark, config, found, histories, target)
    took = time.monotonic() - began
    boosted = _train_gbdt(config, found, target)
    kinds = [name for name in (EVALUATED, PUBLISHED) if name in neural]
    note = f"{', '.join(kinds)}: ranker {took:.0f} s, gbdt {time.monotonic() - began - took:.0f} s"
    manifest = {
        "windows": [str(window.as_of) for window in found],
        "models": kinds,
        RANKER: {name: {"num_epochs": neural[name]["num_epochs"], "rows": neural[name]["rows"]} for name in kinds},
        GBDT: boosted,
    }
    model_folder.save(target, manifest)
    log.info("ranker: %s", note)
    return Summary(
        RANKER,
        rows_in=sum(int(neural[name]["rows"]) for name in kinds),
        rows_out=(len(modes(config)) - 1) * len(kinds),  # a blend is no model
        note=note,
    )


def _train_torch(
    spark: SparkSession, config: Config, found: list[Examples], histories: dict[date, str], target: str
) -> dict[str, Any]:
    """Both copies in one launch, since a launch costs seconds."""
    windows = tuple(job.Window(as_of_day(w.as_of), w.files, histories[w.as_of], w.bundle) for w in found)
    num_processes = config.training.num_processes
    asked = job.Job(
        models=tuple(_models(config, windows, target)),
        features=features_of(config.retriever.names),
        tasks=tuple((task.name, task.kind, task.loss_weight) for task in config.training_examples.tasks),
        given={task.name: task.given for task in config.training_examples.tasks if task.given},
        half_life_days=config.training_examples.half_life_days,
        settings=config.ranker.model_dump(mode="json"),
        seed=config.seed,
        reader=config.training.reader,
        threads=threads(spark, num_processes),
        use_gpu=config.training.use_gpu,
    )
    answer = launch(spark, RANKER, job.run, asked.to_json(), num_processes, asked.use_gpu)
    return dict(answer["models"])


def _models(config: Config, windows: tuple[job.Window, ...], target: str) -> Iterator[job.Model]:
    """Both copies of `ranker`, then of every other transfer to every scenario; a copy's name is its place in `target`,
    but for `ranker`."""
    yield from _copies(windows, target, RANKER)
    scenarios = sorted(set(model_folder.read_manifest(windows[0].bundle)["scenarios"].values()))
    for transfer in config.ranker.transfer:
        for scenario in scenarios if transfer != JOINT else ():
            yield from _copies(windows, target, f"{mode_of(transfer)}/{scenario}", transfer, scenario)


def _copies(
    windows: tuple[job.Window, ...], target: str, place: str, transfer: str = JOINT, scenario: int | None = None
) -> Iterator[job.Model]:
    """`evaluated`, where there is a later window to evaluate on; then `published`, of as many epochs."""
    first, second = (copy if place == RANKER else f"{copy}/{place}" for copy in (EVALUATED, PUBLISHED))
    published = job.Model(second, f"{target}/{PUBLISHED}/{place}", windows, mode=transfer, target=scenario)
    if len(windows) > 1:
        yield replace(published, name=first, folder=f"{target}/{EVALUATED}/{place}", windows=windows[1:])
        published = replace(published, epochs_of=first)
    yield published


def _train_gbdt(config: Config, found: list[Examples], target: str) -> dict[str, Any]:
    """LightGBM on the driver, on at most gbdt.max_rows rows: 4 bytes a feature each, thrice while it learns."""
    if len(found) == 1:
        return {PUBLISHED: _fit_gbdt(config, found, f"{target}/{PUBLISHED}/{GBDT}", None)}
    evaluated = _fit_gbdt(config, found[1:], f"{target}/{EVALUATED}/{GBDT}", None)
    published = _fit_gbdt(config, found, f"{target}/{PUBLISHED}/{GBDT}", evaluated["num_rounds"])
    return {EVALUATED: evaluated, PUBLISHED: published}


def _fit_gbdt(config: Config, found: list[Examples], target: str, num_rounds: int | None) -> dict[str, int]:
    """One copy; with `num_rounds` on all users, else stopped early by a tenth of them."""
    if not model_folder.exists(target):
        from recspark.models.rankers import gbdt  # here, so that a night without training need not load LightGBM

        keys = (job.AS_OF_DAY, c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX)
        label = training_examples.label_column(config.training_examples.tasks[0].name)
        files = [file for window in found for file in window.files]
        names = features_of(config.retriever.names)
        rows = read_users(files, [*keys, *names, label, c.FOLD], c.USER_IDX, config.gbdt.max_rows, config.seed)
        features = np.column_stack([rows.pop(name) for name in names])
        key = np.column_stack([rows[name] for name in keys])
        holdout = rows[c.FOLD] == job.STOP_FOLD
        half_life, day = config.training_examples.half_life_days, rows[job.AS_OF_DAY]
        weights = fading(day, int(day.max()), half_life) if half_life else None
        model = gbdt.fit(
            features, rows[label], key, holdout, names, config.gbdt, config.seed, num_rounds, weights=weights
        )
        manifest, texts = gbdt.to_texts(model)
        model_folder.save(target, manifest, texts=texts)
    manifest = model_folder.read_manifest(target)
    return {"num_rounds": manifest["num_rounds"], "rows": manifest["num_rows"]}
