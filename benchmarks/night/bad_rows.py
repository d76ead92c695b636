"""Damaged raw rows: is each of them accepted, merged, rejected with its reason, a duplicate or later, as it must be?

A draw makes 10,000 rows with every damage of damages.py in each format, and runs the stage `interactions` on them. What
differs from the truth is printed; `wrong` counts the sources with a difference. Needs no data.
"""

import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.night.damaged_files import WRITERS
from benchmarks.night.damages import EXPRESSIONS, RUN_DATE, Truth
from recspark.config.schema import Config
from recspark.expressions import CORRUPT
from recspark.session import get_session
from recspark.stages import interactions
from recspark.summary import Summary
from recspark.tables.interactions import TABLE, Counts
from recspark.tables.rejected_events import TABLE as REJECTED
from recspark.warehouse.store import Store

ROWS, DRAWS = 10_000, 100
FORMATS = (*WRITERS, "delta")


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """`seeds`: 1 means 100 draws; `quick`: two draws of 2,000 rows."""
    draws, rows = (2, 2000) if quick else (DRAWS if seeds == 1 else seeds, ROWS)
    spark, _ = get_session({"spark.sql.shuffle.partitions": "2"}, app_name="bad_rows")
    began, wrong, raw, rejected = time.monotonic(), 0, 0, 0
    for seed in range(draws):
        for kind in FORMATS:
            with tempfile.TemporaryDirectory() as folder:
                truth, faults = draw(spark, Path(folder), kind, rows, seed)
            raw, rejected, wrong = raw + truth.raw, rejected + len(truth.rejected), wrong + bool(faults)
            for fault in faults:
                print(f"draw {seed}, {kind}: {fault}", flush=True)
        print(f"draw {seed}: {raw:,} raw rows so far, {time.monotonic() - began:.0f} s", flush=True)
    spark.stop()
    return {
        "draws": draws,
        "formats": list(FORMATS),
        "rows": rows,
        "raw_rows": raw,
        "rejected_rows": rejected,
        "wrong": wrong,
        "seconds": round(time.monotonic() - began),
    }


def draw(spark: SparkSession, folder: Path, kind: str, rows: int, seed: int) -> tuple[Truth, list[str]]:
    """(the truth, what differs from it) of one source and the tables that the stage makes of it."""
    raw = folder / "raw"
    raw.mkdir()
    written, truth = WRITERS["parquet of texts" if kind == "delta" else kind](
        raw, rows, random.Random(f"{kind} {seed}")
    )
    if kind == "delta":
        spark.read.parquet(str(raw)).write.format("delta").save(str(folder / "delta"))
        written = {"format": "delta", "paths": [str(folder / "delta")]}
    source = {**written, **EXPRESSIONS}
    tree = {"warehouse": str(folder / "warehouse"), "source": {"interactions": source}}
    config = Config.model_validate(tree)
    store = Store(spark, config, f"draw-{seed}")
    summary = interactions.refresh(store, config, RUN_DATE)
    return truth, [*count_faults(summary, truth), *row_faults(store, truth)]


def count_faults(summary: Summary, truth: Truth) -> list[str]:
    """Is each raw row counted once, and as what it is?"""
    expected = Counts(
        truth.raw, len(truth.accepted), truth.merged, truth.duplicates, truth.later, rejected=truth.reasons
    )
    expected.check()
    faults = [] if summary.note == str(expected) else [f"counts: {summary.note}; expected {expected}"]
    reasons = {name: (summary.rejected.get(name, 0), n) for name, n in truth.reasons.items()}
    faults += [f"{name}: {found} rejected, expected {n}" for name, (found, n) in reasons.items() if found != n]
    return faults + [f"{name}: rejected, expected none" for name in summary.rejected if name not in reasons]


def row_faults(store: Store, truth: Truth) -> list[str]:
    """Are the accepted rows the good ones, with their values, and is each rejected row kept with its reason?"""
    time_text = F.col("event_time").cast("string")
    accepted = store.read(TABLE).select(
        "scenario", "user_id", "item_id", time_text, "event", "value", F.col("context")["quantity"]
    )
    found = {tuple(row)[:5]: tuple(row)[5:] for row in accepted.collect()}
    faults = [f"not accepted: {_short(key)}" for key in truth.accepted if key not in found]
    faults += [f"accepted: {_short(key)}" for key in found if key not in truth.accepted]
    faults += [
        f"{_short(key)}: {found[key]}, expected {values}"
        for key, values in truth.accepted.items()
        if key in found and found[key] != values
    ]
    kept = [(row.reason, json.loads(row.raw)) for row in store.read(REJECTED).collect()]
    rejected = {(reason, raw.get(CORRUPT) or raw["note"]) for reason, raw in kept}
    expected = set(truth.rejected)
    faults += [f"not in rejected_events: {_short(one)}" for one in expected - rejected]
    return faults[:20] + [f"in rejected_events: {_short(one)}" for one in rejected - expected][:20]


def _short(value: Any) -> str:
    return ascii(value)[:300]
