"""Did a change of the code change a night? Compares the tables of two warehouses row by row.

    uv run python -m benchmarks.night.same_tables WAREHOUSE_BEFORE WAREHOUSE_AFTER

Run the same night with both versions of the code first, each into a warehouse of its own. Numbers may differ by 1e-6 of
their size. What says when and by which run a row was written is not compared, nor is stage_runs, the history of runs.
The last line is one JSON object; exit code 1 where anything differs.
"""

import argparse
import json
import sys
from typing import TYPE_CHECKING

from recspark.session import get_session

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

NTH = "_nth"  # in a key: the place of a row among those that share the rest of it, in order of their values
KEYS = {
    "interactions": ("scenario", "user_id", "item_id", "event_time", "event"),
    "rejected_events": ("row_hash",),
    "items": ("item_id",),
    "item_facts": ("item_id", "relation", "entity"),
    "item_index": ("item_id",),
    "user_index": ("user_id",),
    "scenario_index": ("scenario",),
    "item_embeddings": ("item_id", "encoder"),
    "candidates": ("as_of", "scenario", "user_idx", "item_idx"),
    # two small scenarios of one user share a scenario_idx, so rows are told apart by what they say, too
    "training_examples": ("as_of", "scenario_idx", "user_idx", "item_idx", NTH),
    "model_metrics": ("run_date", "model", "baseline", "scenario", "slice", "metric"),
    "recommendations": ("run_date", "scenario", "user_id", "rank"),
    "recommendation_facts": ("run_date", "scenario", "user_id", "item_id"),
    "published_runs": ("run_date", "status", "reason"),
}
OF_A_RUN = frozenset(("run_id", "published_at", "config_hash", "model_versions", "input_versions"))
TOLERANCE = 1e-6


def differing(before: "DataFrame", after: "DataFrame", key: tuple[str, ...]) -> dict[str, int]:
    """Column -> rows in which it differs; `rows only before` and `rows only after`; nothing where all is the same."""
    from pyspark.sql import functions as F

    if NTH in key:
        before, after = (_numbered(rows, key[:-1]) for rows in (before, after))
    names = [name for name in before.columns if name not in OF_A_RUN and name not in key]
    missing = sorted(({*before.columns} ^ {*after.columns}) - OF_A_RUN)
    if missing:
        return dict.fromkeys((f"column {name} of one only" for name in missing), 1)
    left = before.select(*key, *(F.col(name).alias(f"{name}_before") for name in names), F.lit(True).alias("_before"))
    right = after.select(*key, *(F.col(name).alias(f"{name}_after") for name in names), F.lit(True).alias("_after"))
    same_key = [F.col(f"l.{name}").eqNullSafe(F.col(f"r.{name}")) for name in key]
    both = left.alias("l").join(right.alias("r"), on=same_key, how="full")
    types = dict(before.dtypes)
    is_in_both = F.col("_before").isNotNull() & F.col("_after").isNotNull()
    counts = [F.count_if(F.col("_after").isNull()).alias("rows only before")]
    counts += [F.count_if(F.col("_before").isNull()).alias("rows only after")]
    counts += [
        F.count_if(is_in_both & ~_same(F.col(f"{name}_before"), F.col(f"{name}_after"), types[name])).alias(name)
        for name in names
    ]
    found = both.agg(*counts).collect()[0].asDict()
    return {name: count for name, count in found.items() if count}


def _numbered(rows: "DataFrame", key: tuple[str, ...]) -> "DataFrame":
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    values = sorted(set(rows.columns) - set(key) - OF_A_RUN)
    return rows.withColumn(NTH, F.row_number().over(Window.partitionBy(*key).orderBy(*values)))


def _same(left: "Column", right: "Column", kind: str) -> "Column":
    from pyspark.sql import functions as F

    if kind.startswith("map"):
        left, right = (F.sort_array(F.map_entries(one)) for one in (left, right))
    if kind not in ("double", "float"):
        return left.eqNullSafe(right)
    near = F.abs(left - right) <= TOLERANCE * F.greatest(F.lit(1.0), F.abs(left))
    near &= ~F.isnan(left) & ~F.isnan(right)  # to Spark NaN is larger than any number, and as large as itself
    return F.coalesce(near | left.eqNullSafe(right), left.isNull() & right.isNull(), F.lit(False))


def compare(before: str, after: str) -> dict[str, dict[str, int]]:
    """Table -> what differs, see `differing`; a table that neither warehouse has is left out."""
    from delta.tables import DeltaTable

    spark, _ = get_session({"spark.sql.shuffle.partitions": "4"}, app_name="same-tables")
    found: dict[str, dict[str, int]] = {}
    for noun, key in KEYS.items():
        exist = [DeltaTable.isDeltaTable(spark, f"{warehouse}/{noun}") for warehouse in (before, after)]
        if all(exist):
            frames = [spark.read.format("delta").load(f"{warehouse}/{noun}") for warehouse in (before, after)]
            found[noun] = differing(*frames, key)
            print(f"{noun}: {frames[0].count():,} rows, {found[noun] or 'the same'}", flush=True)
        elif any(exist):
            found[noun] = {"table of one only": 1}
            print(f"{noun}: only in {before if exist[0] else after}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.night.same_tables", description=__doc__)
    parser.add_argument("before")
    parser.add_argument("after")
    given = parser.parse_args()
    found = compare(given.before, given.after)
    differ = {noun: columns for noun, columns in found.items() if columns}
    print(json.dumps({"benchmark": "same_tables", "tables": len(found), "differ": differ}))
    return int(bool(differ) or not found)


if __name__ == "__main__":
    sys.exit(main())
