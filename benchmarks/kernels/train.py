"""Rows a second of training the ranker from Delta: `python -m benchmarks train`.

2 M planted rows in the columns of training_examples, written by Spark into Delta, with histories and content vectors as
a night writes them; the default body and widths of config.Ranker. Ours is the product's own code with
TorchDistributor, for one epoch: one process with a thread for each core, then a process for each core. It is compared
with a bare torch loop on the same number of threads: the same network, loss, optimizer and batch size over some batches
that are ready tensors in memory. Rates do not include start-up: they are of step WARM_UP to the end of the epoch.
"""

import json
import multiprocessing as mp
import os
import tempfile
import time
from dataclasses import replace
from typing import Any

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.rankers import Ranker, TrainingExamples
from recspark.config.schema import Config
from recspark.features import features_of
from recspark.histories import USERS_A_SHARD, finish, save_shard
from recspark.session import get_session
from recspark.stages.launch import launch
from recspark.stages.training_examples import ROWS_A_FILE
from recspark.tables import training_examples
from recspark.training.ranking.job import AS_OF_DAY, RankerJob, RankerModel, Window
from recspark.warehouse.store import Store

ROWS, USERS, ITEMS, SCENARIOS, CONTENT_DIM = 2_000_000, 100_000, 4000, 10, 384
DAY = 18_000
EVENTS = 20  # of each user
STOPPING = 0.002  # share of the rows for early stopping, which is not timed
WARM_UP = 20  # steps
READY = 40  # batches of the bare loop


def job_of(spark: SparkSession, folder: str, rows: int) -> RankerJob:
    config = Config(
        warehouse=folder,
        source={"interactions": {"format": "parquet", "paths": ["x"], "scenario": "s", "user_id": "u", "item_id": "i",
                                 "event_time": "t"}},
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
    write_window(window)
    return RankerJob(
        models=(RankerModel("ranker", f"{folder}/ranker", (window,)),),
        features=features,
        tasks=tasks,
        settings=Ranker(max_epochs=1),
        seed=0,
        reader="auto",
        threads=1,
    )


def write_window(window: Window) -> None:
    """Write the histories and the retriever's bundle of a window."""
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


def timed(job: RankerJob) -> dict[str, Any]:
    """Run the product's training and note when each step began; called in every process of the launch."""
    from recspark.training.ranking import fit, loop

    real, times = loop._step, []

    def step(*args: Any) -> float:
        times.append(time.monotonic())
        return real(*args)

    loop._step = step
    try:
        answer = fit.train_all(job)
    finally:
        loop._step = real
    return {**answer, "times": times}


def ours(spark: SparkSession, job: RankerJob, processes: int, cores: int, folder: str) -> float:
    """Rows a second of one epoch, from the steps of the first process: all processes have equal ones."""
    model = replace(job.models[0], folder=f"{folder}/ranker-{processes}")
    job = replace(job, models=(model,), threads=cores // processes)
    answer = launch(spark, "benchmark", timed, job, processes, use_gpu=False)
    times, rows = answer["times"], answer["models"]["ranker"]["rows"]
    steps = len(times) - 1 - warm_up(len(times))
    return steps * batch_size(rows) / (times[-1] - times[-1 - steps])


def warm_up(steps: int) -> int:
    return min(WARM_UP, steps // 3)


def batch_size(rows: int) -> int:
    from recspark.training.ranking import fit

    return fit.batch_size(rows)


def bare(job: RankerJob, threads: int, answers: Any) -> None:
    """Put the rows a second of the plain loop over tensors in memory; runs in a process of its own."""
    import torch

    from benchmarks.kernels import bare_loop
    from recspark.training.ranking import fit

    torch.set_num_threads(threads)
    model = job.models[0]
    prepare_batch = fit.BatchPreparer(job.features, job.tasks, model.windows, job.settings.history_length)
    feed = fit.open_feed(job, model, fit.row_filters(model, "all", stops=False))
    network = fit.new_network(job, model, feed, prepare_batch)
    batches = feed.batches(0)
    ready = []
    for _ in range(min(READY, feed.num_steps - 1)):  # the last batch is not full
        batch = next(batches)
        ready.append((*prepare_batch(batch), torch.from_numpy(batch.weights)))
    batches.close()
    first = warm_up(feed.num_steps)
    steps = min(feed.num_steps - 1 - first, 5 * READY)
    rates = job.settings.learning_rate, job.settings.weight_decay
    answers.put(steps * batch_size(feed.num_rows) / bare_loop.seconds(network, ready, steps, first, *rates))


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """No data set is read; the three are timed one after the other, `seeds` times, and the best time of each counts."""
    rows, cores = (20_000 if quick else ROWS), os.cpu_count() or 1
    # child processes import this module by its name
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        spark, own = get_session({"spark.master": f"local[{cores}]"}, app_name="train")
        job = job_of(spark, folder, rows)
        for seed in range(seeds):
            for name in ("bare", "one process", "all processes"):
                if name == "bare":
                    found = bare_rate(job, cores)
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


def bare_rate(job: RankerJob, cores: int) -> float:
    """Rows a second of `bare`."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # as launch() sets it
    context = mp.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=bare, args=(job, cores, answers))
    process.start()
    found = answers.get(timeout=600)
    process.join()
    return float(found)
