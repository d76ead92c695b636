"""Rows a second of training the ranker from Delta: `python -m benchmarks train`.

2 M planted rows in the columns of training_examples, written by Spark into Delta, with histories and content vectors
beside them as a night leaves them; the default body and widths of config.Ranker. The product's own path,
TorchDistributor and all, for one epoch: one process with a thread for each core, then a process for each core. Beside
it, on as many threads, a bare torch loop: the same network, loss, optimizer and batch size over some batches that lie
in memory as ready tensors. Rates are after start-up: from step WARM_UP to the end of the epoch.
"""

import json
import multiprocessing as mp
import os
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config, Ranker, TrainingExamples
from recspark.features import features_of
from recspark.histories import USERS_A_SHARD, finish, save_shard
from recspark.session import get_session
from recspark.stages.launch import launch
from recspark.stages.training_examples import ROWS_A_FILE
from recspark.tables import training_examples
from recspark.training.ranking.job import AS_OF_DAY, Job, Model, Window
from recspark.warehouse.store import Store

ROWS, USERS, ITEMS, SCENARIOS, CONTENT_DIM = 2_000_000, 100_000, 4000, 10, 384
DAY = 18_000
EVENTS = 20  # of each user
STOPPING = 0.002  # share of the rows that stop a training early, which is no part of the rate
WARM_UP = 20  # steps
READY = 40  # batches of the bare loop


def job_of(spark: SparkSession, folder: str, rows: int) -> Job:
    config = Config(
        warehouse=folder,
        source={"interactions": {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i",
                                 "event_time": "t"}},  # type: ignore[arg-type]
    )  # fmt: skip
    tasks = TrainingExamples().tasks
    table = training_examples.table(tasks)
    features = features_of(config.retriever.names)
    drawn = {c.SCENARIO_IDX: SCENARIOS, c.USER_IDX: USERS, c.ITEM_IDX: ITEMS}
    columns = {
        c.AS_OF: F.lit("2019-04-14").cast("date"),
        AS_OF_DAY: F.lit(DAY),
        **{name: F.pmod(F.xxhash64("id", F.lit(name)), F.lit(top)).cast("int") for name, top in drawn.items()},
        **{name: F.randn(seed) if name in features else F.lit(np.nan) for seed, name in enumerate(table.columns)
           if name in training_examples.FEATURES},
        c.WEIGHT: F.lit(1.0),
        c.FOLD: F.when(F.rand(1) < STOPPING, 0).otherwise(1),
    }  # fmt: skip
    planted = spark.range(rows).select(*(column.alias(name) for name, column in columns.items()))
    label = (F.col(features[0]) + F.randn(99) > 0).cast("float")
    planted = planted.withColumn(training_examples.label_column(tasks[0].name), label)
    types = table.ddl.split(", ")  # name type
    planted = planted.select(*(F.col(one.split()[0]).cast(one.split()[1]) for one in types))
    files = -(-rows // ROWS_A_FILE)
    store = Store(spark, config, "train")
    version = store.replace(table, training_examples.in_hash_order(planted, (c.USER_IDX, c.ITEM_IDX), files))
    window = Window(DAY, tuple(store.files(table, version)), f"{folder}/histories", f"{folder}/bundle")
    beside(window)
    return Job(
        models=(Model("ranker", f"{folder}/ranker", (window,)),),
        features=features,
        tasks=tuple((task.name, task.kind, task.loss_weight) for task in tasks),
        settings=Ranker(max_epochs=1).model_dump(mode="json"),
        seed=0,
        reader="auto",
        threads=1,
    )


def beside(window: Window) -> None:
    """Histories and the retriever's bundle."""
    rng = np.random.default_rng(0)
    shards = -(-USERS // USERS_A_SHARD)
    for shard in range(shards):
        users = np.arange(shard * USERS_A_SHARD, min(USERS, (shard + 1) * USERS_A_SHARD))
        size = rng.integers(0, 2 * EVENTS, len(users))
        offsets = np.concatenate(([0], np.cumsum(size)))
        items = rng.integers(0, ITEMS, offsets[-1])
        save_shard(window.histories, shard, users, offsets, items, np.ones(len(items), np.int32), np.ones(len(items)))
    finish(window.histories, list(range(shards)), {})
    content = rng.normal(size=(ITEMS, CONTENT_DIM)).astype(np.float32)
    scenarios = {f"s{number}": number for number in range(SCENARIOS)}
    model_folder.save(window.bundle, {"scenarios": scenarios}, {"content": content})


def timed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What every process of the launch runs: the product's training, a note made of when each step began."""
    from recspark.training.ranking import fit, loop

    real, times = loop._step, []

    def step(*args: Any) -> float:
        times.append(time.monotonic())
        return real(*args)

    loop._step = step
    try:
        answer = fit.run(tree)
    finally:
        loop._step = real
    return {**answer, "times": times}


def ours(spark: SparkSession, job: Job, processes: int, cores: int, folder: str) -> float:
    """Rows a second of one epoch. The answer is the first process's, whose steps are everybody's."""
    asked = job.to_json()
    asked["models"][0]["folder"] = f"{folder}/ranker-{processes}"
    asked["threads"] = cores // processes
    answer = launch(spark, "benchmark", timed, asked, processes, use_gpu=False)
    times, rows = answer["times"], answer["models"]["ranker"]["rows"]
    steps = len(times) - 1 - warm_up(len(times))
    return steps * batch_size(rows) / (times[-1] - times[-1 - steps])


def warm_up(steps: int) -> int:
    return min(WARM_UP, steps // 3)


def batch_size(rows: int) -> int:
    from recspark.training.ranking import fit

    return fit.batch_size(rows)


def bare(tree: Mapping[str, Any], threads: int, told: Any) -> None:
    """A process of its own: rows a second of the plain loop over tensors in memory."""
    import torch

    from benchmarks.kernels import bare_loop
    from recspark.training.ranking import fit

    torch.set_num_threads(threads)
    job = Job.from_json(tree)
    model = job.models[0]
    look = fit.LookUp(job.features, job.tasks, model.windows, job.settings["history_length"])
    feed = fit._feed(job, model, fit.folds(model, "all", False))
    network = fit._ranker(job, model, feed, look)
    batches = feed.batches(0)
    ready = []
    for _ in range(min(READY, feed.num_steps - 1)):  # the last one is not full
        batch = next(batches)
        ready.append((*look(batch), torch.from_numpy(batch.weights)))
    batches.close()  # type: ignore[attr-defined]
    first = warm_up(feed.num_steps)
    steps = min(feed.num_steps - 1 - first, 5 * READY)
    rates = job.settings["learning_rate"], job.settings["weight_decay"]
    told.put(steps * batch_size(feed.num_rows) / bare_loop.seconds(network, ready, steps, first, *rates))


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """No data set is read; the three are timed in turn, `seeds` times, and the best of each counts."""
    rows, cores = (20_000 if quick else ROWS), os.cpu_count() or 1
    # the children import this module by its name
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        spark, own = get_session({"spark.master": f"local[{cores}]"}, app_name="train")
        job = job_of(spark, folder, rows)
        for seed in range(seeds):
            for name in ("bare", "one process", "all processes"):
                if name == "bare":
                    found = alone(job, cores)
                else:
                    processes = 1 if name == "one process" else cores
                    found = ours(spark, job, processes, cores, f"{folder}/{seed}")
                best[name] = max(best.get(name, 0.0), found)
                print(f"{name:16s} {found:10,.0f} rows/s", flush=True)
        if own:
            spark.stop()
    figures = {
        **{f"{name} rows/s": round(rate) for name, rate in best.items()},
        "one process over bare": round(best["one process"] / best["bare"], 3),
        "all processes over one": round(best["all processes"] / best["one process"], 3),
    }
    print(json.dumps(figures, indent=1))
    return {**figures, "rows": rows, "cores": cores}


def alone(job: Job, cores: int) -> float:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as launch() has it
    context = mp.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=bare, args=(job.to_json(), cores, told))
    process.start()
    found = told.get(timeout=600)
    process.join()
    return float(found)
