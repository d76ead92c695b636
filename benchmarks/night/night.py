"""A whole nightly command against the bare work in it, on 1, 4 and 16 copies of Online Retail.

Each further copy has users of its own and a random 9 of 10 of the rows; scenarios and items are the same. The bare work
is what remains without any scheduler, table or extra process: the encoder over all texts, Gram matrices and their
inverses, the arithmetic of the candidates, both trainings, and scoring for the two dates that a night scores.
Arithmetic that Spark spreads over its tasks is timed on one core, on a sample of the users, and divided by the number
of cores. Everything else, also reading, merging, joining and writing tables, counts as overhead.
"""

import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.night.nightly import nightly
from recspark import model_folder

RUN_DATE = "2011-12-08"
TIMES = (1, 4, 16)
KEPT = 0.9  # of a copy's rows
SAMPLE = 8  # one of this many users is timed
GIB = 1 << 30


def scaled(data: str, folder: str, times: int) -> None:
    """Write `times` copies of the transactions, as a data set of its own in `folder`."""
    Path(f"{folder}/transactions.parquet").mkdir()
    rows = pq.read_table(Path(data) / "transactions.parquet")
    at, rng = rows.schema.get_field_index("CustomerID"), np.random.default_rng(0)
    for copy in range(times):
        others = pc.add(rows["CustomerID"], pa.scalar(100_000 * copy, pa.int32()))
        made = rows.set_column(at, "CustomerID", others)
        kept = made if copy == 0 else made.filter(pa.array(rng.random(len(rows)) < KEPT))
        pq.write_table(kept, f"{folder}/transactions.parquet/{copy}.parquet", row_group_size=200_000)


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """The most memory, in GiB, that all JVMs and all Python processes started by this one held at the same time."""
    peak, over = {"jvm": 0.0, "python": 0.0}, threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            now = dict.fromkeys(peak, 0.0)
            for one in psutil.Process().children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    now["jvm" if one.name() == "java" else "python"] += one.memory_info().rss / GIB
            peak.update({kind: round(max(peak[kind], size), 2) for kind, size in now.items()})

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def bare(warehouse: str, run_date: str, ranker_note: str) -> dict[str, float]:
    """Seconds of the bare work of a first night, on the tables and models of its warehouse."""
    from recspark.config import load as config_file
    from recspark.config.schema import Config
    from recspark.session import get_session
    from recspark.stages.candidates import stage as candidates
    from recspark.stages.ranker.examples import examples_of
    from recspark.stages.ranker.modes import BLEND, EVALUATED, PUBLISHED, RANKER
    from recspark.stages.ranker.scorer import scorer
    from recspark.tables import histories
    from recspark.tables.items import TABLE as ITEMS
    from recspark.warehouse import artifacts
    from recspark.warehouse.store import Store
    from recspark.windows import as_ofs

    config: Config = config_file.load("conf/online_retail.yaml", (f"warehouse={warehouse}",))
    spark, _ = get_session(config.spark, app_name="night")
    store, night = Store(spark, config, "bare"), date.fromisoformat(run_date)
    cores, found = os.cpu_count() or 1, {}
    texts = [row.text for row in store.read(ITEMS).select("text").collect()]
    found["encode"] = _encode(texts)
    found["retriever"] = found["candidates"] = 0.0
    settings = config.training_examples
    for as_of in as_ofs(night, settings.label_days, settings.num_windows):
        path = artifacts.require(store, config, "retriever", as_of, "retriever")
        rows = histories.read(store, config, as_of, histories.groups_in(path)).toArrow()
        found["retriever"] += _gram_and_inverse(rows, path, config, cores)
        found["candidates"] += _candidates(rows, path, candidates.settings_of(config, as_of)) / cores
    windows = examples_of(store, config, night)
    models = artifacts.require(store, config, RANKER, night, RANKER)
    trained = model_folder.read_manifest(models)["models"]
    found["ranker"] = sum(model_folder.read_manifest(f"{models}/{m}/ranker")["training"]["seconds"] for m in trained)
    gbdt = re.search(r"gbdt (\d+) s", ranker_note)
    found["gbdt"] = float(gbdt[1]) if gbdt else 0.0
    found["score"] = 0.0
    for as_of, copy in ((night, PUBLISHED), (windows[0].as_of, EVALUATED)):
        scores, rows = scorer(store, config, night, as_of, copy), _one_in(SAMPLE, store, as_of)
        found["score"] += SAMPLE * _seconds(partial(scores, rows, (BLEND,))) / cores
    spark.stop()
    return {name: round(seconds, 1) for name, seconds in found.items()}


def _one_in(sample: int, store: Any, as_of: date) -> pa.Table:
    from recspark.tables import candidates

    return store.read(candidates.TABLE).where(f"as_of = '{as_of}' AND user_idx % {sample} = 0").toArrow()


def _seconds(task: Callable[[], object]) -> float:
    began = time.monotonic()
    task()
    return time.monotonic() - began


def _encode(texts: list[str | None]) -> float:
    from recspark.encoders import text

    encoder = text.load()
    return _seconds(lambda: encoder.encode(texts))


def _gram_and_inverse(rows: pa.Table, bundle: str, config: Any, cores: int) -> float:
    """Spark's tasks share the Gram matrix; LAPACK's threads the inverse."""
    from recspark.histories import from_arrow
    from recspark.models.retrievers import affinity, linear
    from recspark.stages.retriever.bundle import open_bundle

    h = from_arrow(rows.combine_chunks().to_batches()[0])
    opened, settings = open_bundle(bundle), config.retriever.linear
    num_items, day = len(opened.known), float(opened.as_of_day)
    history_UI = affinity.recent(h.offsets, h.item_idx, h.weight, h.time, num_items, day, settings.half_life_days)
    history_UI = history_UI.astype(np.float64)
    grams: list[np.ndarray] = []
    shared = _seconds(lambda: grams.append(linear.assemble(linear.gram_blocks(history_UI), num_items)))
    return shared / cores + _seconds(lambda: linear.fit(grams[0], settings.l2))


def _candidates(rows: pa.Table, bundle: str, settings: Any) -> float:
    from recspark.stages.candidates.blocks import block_candidates
    from recspark.stages.retriever.bundle import open_bundle

    opened = open_bundle(bundle)
    some = rows.take(pa.array(np.arange(0, len(rows), SAMPLE))).combine_chunks().to_batches()[0]
    blocks = [some.slice(low, settings.block_users) for low in range(0, len(some), settings.block_users)]
    return SAMPLE * _seconds(lambda: [block_candidates(block, opened, settings) for block in blocks])


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """One run of each size, `seeds` is not used; `quick`: one copy only."""
    found: dict[str, Any] = {}
    for times in TIMES[:1] if quick else TIMES:
        with tempfile.TemporaryDirectory() as folder:
            scaled(data, folder, times)
            with watched() as peak:
                seconds, result = nightly(folder, f"{folder}/warehouse", RUN_DATE, quick=False)
            stages = result["stages"]
            work = bare(f"{folder}/warehouse", RUN_DATE, stages["ranker"]["note"])
        found[f"x{times}"] = {
            "seconds": round(seconds, 1),
            "bare": round(sum(work.values()), 1),
            "overhead": round(seconds / sum(work.values()) - 1, 3),
            "peak_gib": peak,
            "stages": {name: stage["seconds"] for name, stage in stages.items()},
            "kernels": work,
        }
        print(f"x{times}", found[f"x{times}"], flush=True)
    return found
