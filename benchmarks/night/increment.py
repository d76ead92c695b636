"""What one more night costs: the first night on 16 copies of Online Retail, then the next with 1 % new events.

The second night finds the events of one day (0.9 % of all before it). Its closed windows are those of the night before,
so no model is trained again; once a week, when the windows move, a night trains. The same night is then made from
nothing, to see how much time the increment saved and whether the metrics are the same.
"""

import json
import tempfile
from typing import Any

from benchmarks.night.night import RUN_DATE, scaled
from benchmarks.night.nightly import nightly

NEXT_DATE = "2011-12-09"
TIMES = 16
TABLES = ("interactions", "items", "item_embeddings")


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """One run, `seeds` is not used; `quick`: one copy of the data."""
    with tempfile.TemporaryDirectory() as folder:
        scaled(data, folder, 1 if quick else TIMES)
        first_seconds, _ = nightly(folder, f"{folder}/warehouse", RUN_DATE, quick=False)
        print(f"first night {first_seconds:.1f} s", flush=True)
        next_seconds, later = nightly(folder, f"{folder}/warehouse", NEXT_DATE, quick=False)
        print(f"next night {next_seconds:.1f} s", flush=True)
        full_seconds, full = nightly(folder, f"{folder}/fresh", NEXT_DATE, quick=False)
        figures = [published(f"{folder}/{name}", NEXT_DATE) for name in ("warehouse", "fresh")]
    found = {
        "next_seconds": round(next_seconds, 1),
        "full_seconds": round(full_seconds, 1),
        "in_all": round(next_seconds / full_seconds, 3),
        "tables_and_embeddings": round(_of_tables(later) / _of_tables(full), 3),
        "same_metrics": figures[0] == figures[1],
        "next_stages": {name: stage["seconds"] for name, stage in later["stages"].items()},
        "full_stages": {name: stage["seconds"] for name, stage in full["stages"].items()},
    }
    for name, value in found.items():
        print(f"{name:22s} {json.dumps(value)}", flush=True)
    return found


def _of_tables(result: dict[str, Any]) -> float:
    return sum(result["stages"][stage]["seconds"] for stage in TABLES)


def published(warehouse: str, run_date: str) -> list[tuple[Any, ...]]:
    """The rows of model_metrics of a night, over all users, sorted."""
    from recspark.session import get_session

    spark, _ = get_session({}, app_name="increment")
    rows = spark.read.format("delta").load(f"{warehouse}/model_metrics").where(f"run_date = '{run_date}'")
    names = ("model", "baseline", "scenario", "slice", "metric", "value")
    found = sorted((tuple(row[name] for name in names) for row in rows.where("slice = 'all'").collect()), key=str)
    spark.stop()
    return found
