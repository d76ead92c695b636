"""Damaged raw rows: is each of them accepted, merged, rejected with its reason, a duplicate or later, as it must be?

A draw makes 10,000 rows with every damage of damages.py in each format, and builds the events and the rejected rows of
them, as the stage `interactions` does before it writes. What differs from the truth is printed; `wrong` counts the
sources with a difference. Needs no data.
"""

import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from benchmarks.night.damaged_files import WRITERS
from benchmarks.night.damages import EXPRESSIONS, RUN_DATE, Truth
from recspark.config.sources import InteractionSource
from recspark.expressions import CORRUPT
from recspark.session import get_session
from recspark.sources import raw
from recspark.sources.events import SECTION
from recspark.stages import interactions
from recspark.tables.interactions import Counts

ROWS, DRAWS = 10_000, 100
SMALL = {  # many small queries: compiling each of them costs more than it saves
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
FORMATS = (*WRITERS, "delta")


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """`seeds`: the number of draws, 1 for 100; `quick`: two draws of 2,000 rows."""
    draws, rows = (2, 2000) if quick else (DRAWS if seeds == 1 else seeds, ROWS)
    os.environ.setdefault("SPARK_SUBMIT_OPTS", "-XX:TieredStopAtLevel=1")
    spark, _ = get_session(SMALL, app_name="bad_rows")
    began, wrong, num_raw, num_rejected = time.monotonic(), 0, 0, 0
    for seed in range(draws):
        for kind in FORMATS:
            with tempfile.TemporaryDirectory() as folder:
                truth, faults = draw(spark, Path(folder), kind, rows, seed)
            num_raw, num_rejected, wrong = num_raw + truth.raw, num_rejected + len(truth.rejected), wrong + bool(faults)
            for fault in faults:
                print(f"draw {seed}, {kind}: {fault}", flush=True)
        print(f"draw {seed}: {num_raw:,} raw rows so far, {wrong} wrong, {time.monotonic() - began:.0f} s", flush=True)
    spark.stop()
    return {
        "draws": draws,
        "formats": list(FORMATS),
        "rows": rows,
        "raw_rows": num_raw,
        "rejected_rows": num_rejected,
        "wrong": wrong,
        "seconds": round(time.monotonic() - began),
    }


def draw(spark: SparkSession, folder: Path, kind: str, rows: int, seed: int) -> tuple[Truth, list[str]]:
    """(the truth, what differs from it) of one source and the tables that the stage makes of it."""
    files = folder / "raw"
    files.mkdir()
    written, truth = WRITERS["parquet of texts" if kind == "delta" else kind](
        files, rows, random.Random(f"{kind}{seed}")
    )
    if kind == "delta":
        spark.read.parquet(str(files)).write.format("delta").save(str(folder / "delta"))
        written = {"format": "delta", "paths": [str(folder / "delta")]}
    source = InteractionSource.model_validate({**written, **EXPRESSIONS})
    with interactions.building(raw.read(spark, source, SECTION), source, RUN_DATE) as built:
        return truth, [*count_faults(built.counts, truth), *row_faults(built.accepted, built.rejected, truth)]


def count_faults(found: Counts, truth: Truth) -> list[str]:
    """Is each raw row counted once, and as what it is?"""
    expected = Counts(
        truth.raw, len(truth.accepted), truth.merged, truth.duplicates, truth.later, rejected=truth.reasons
    )
    expected.check()
    faults = [] if str(found) == str(expected) else [f"counts: {found}; expected {expected}"]
    reasons = sorted({*found.rejected, *truth.reasons})
    both = [(reason, found.rejected.get(reason, 0), truth.reasons.get(reason, 0)) for reason in reasons]
    return faults + [f"{reason}: {n} rejected, expected {right}" for reason, n, right in both if n != right]


def row_faults(accepted: DataFrame, rejected: DataFrame, truth: Truth) -> list[str]:
    """Are the accepted rows the good ones, with their values, and is each rejected row kept with its reason?"""
    time_text = F.col("event_time").cast("string")
    quantity = F.col("context")["quantity"]
    rows = accepted.select("scenario", "user_id", "item_id", time_text, "event", "value", quantity).collect()
    found = {tuple(row)[:5]: tuple(row)[5:] for row in rows}
    faults = [f"not accepted: {_short(key)}" for key in truth.accepted if key not in found]
    faults += [f"accepted: {_short(key)}" for key in found if key not in truth.accepted]
    faults += [
        f"{_short(key)}: {found[key]}, expected {values}"
        for key, values in truth.accepted.items()
        if key in found and found[key] != values
    ]
    kept = [(row.reason, json.loads(row.raw)) for row in rejected.collect()]
    marks = {(reason, text.get(CORRUPT) or text["note"]) for reason, text in kept}
    expected = set(truth.rejected)
    faults += [f"not in rejected_events: {_short(one)}" for one in expected - marks]
    return faults[:20] + [f"in rejected_events: {_short(one)}" for one in marks - expected][:20]


def _short(value: Any) -> str:
    return ascii(value)[:300]
