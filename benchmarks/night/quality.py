"""NDCG@10 of the published lists on what users bought for the first time in the 28 days after the night.

Measured over the users who were known before run_date and then bought something new; a user without a list counts as
zero. The nights read nothing after their run_date; the purchases come from the raw file. The same night's popular and
linear orders of its own candidates are measured for comparison.
"""

import tempfile
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.night.nightly import nightly
from recspark.metrics import ndcg_at_k

RUN_DATES = ("2011-11-11", "2011-10-14", "2011-09-16", "2011-08-19")
PRODUCT = r"^(?:[0-9]{5}[A-Z]{0,2}|DCGS[A-Z0-9]+)$"
DAYS, K = 28, 10


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """A night for every date and seed; `quick`: the first date only."""
    sold = purchases(data)
    rows = []
    for run_date in RUN_DATES[:1] if quick else RUN_DATES:
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as warehouse:
                seconds, _ = nightly(data, warehouse, run_date, False, f"seed={seed}")
                found = score(warehouse, sold, date.fromisoformat(run_date))
            rows.append({"run_date": run_date, "seed": seed, **found, "seconds": round(seconds)})
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    print(table.round(4).to_string(index=False))
    mean = table.groupby("run_date")[["published", "linear", "popular"]].mean().round(4)
    return {"ndcg@10": mean.to_dict("index"), "seeds": seeds, "mean": round(float(mean["published"].mean()), 4)}


def purchases(data: str) -> pd.DataFrame:
    """(user_id, item_id, time) of every purchase of a product by a known customer."""
    rows = pq.read_table(f"{data}/transactions.parquet").to_pandas()
    rows["item_id"] = rows["StockCode"].str.upper()
    known = rows["CustomerID"].notna() & rows["item_id"].str.match(PRODUCT)
    rows = rows[known & ~rows["InvoiceNo"].str.startswith("C")]
    user = rows["CustomerID"].astype("int64").astype(str)
    return pd.DataFrame({"user_id": user, "item_id": rows["item_id"], "time": rows["InvoiceDate"]})


def truth(sold: pd.DataFrame, run_date: date) -> dict[str, set[str]]:
    """The items that each known user bought for the first time within the window; users without any are left out."""
    start, end = pd.Timestamp(run_date), pd.Timestamp(run_date + timedelta(days=DAYS + 1))
    before = sold[sold["time"] < start]
    window = sold[(sold["time"] >= start) & (sold["time"] < end) & sold["user_id"].isin(set(before["user_id"]))]
    new = window.drop_duplicates(["user_id", "item_id"]).merge(
        before.drop_duplicates(["user_id", "item_id"])[["user_id", "item_id"]], how="left", indicator=True
    )
    new = new[new["_merge"] == "left_only"]
    return {str(user): set(items) for user, items in new.groupby("user_id")["item_id"]}


def score(warehouse: str, sold: pd.DataFrame, run_date: date) -> dict[str, float]:
    """NDCG@10 of the published list, and of the night's linear and popular order of the same candidates."""
    wanted = truth(sold, run_date)
    lists = _table(warehouse, "recommendations").query("user_id != '__default__'")
    found = {"users": len(wanted), "published": mean_ndcg(lists.sort_values("rank"), wanted)}
    ids = _table(warehouse, "user_index").merge(
        _table(warehouse, "candidates", f"as_of={run_date}", ["user_idx", "item_idx", "linear_score", "popular_score"])
    )
    ids = ids.merge(_table(warehouse, "item_index"))
    for name in ("linear", "popular"):
        best = ids.sort_values([f"{name}_score", "item_id"], ascending=[False, True]).drop_duplicates(
            ["user_id", "item_id"]
        )
        found[name] = mean_ndcg(best, wanted)
    return found


def mean_ndcg(ordered: pd.DataFrame, wanted: dict[str, set[str]]) -> float:
    """Mean NDCG@K over the users of `wanted`, by the first K rows of each in the given order; without rows it is 0."""
    top = ordered[ordered["user_id"].isin(wanted)].groupby("user_id").head(K)
    relevant = [(u, [item in wanted[u] for item in items]) for u, items in top.groupby("user_id")["item_id"]]
    offsets = np.cumsum([0, *(len(hits) for _, hits in relevant)])
    flat = np.concatenate([hits for _, hits in relevant])
    return float(ndcg_at_k(flat, offsets, np.array([len(wanted[u]) for u, _ in relevant]), K).sum() / len(wanted))


def _table(warehouse: str, noun: str, part: str = "", columns: list[str] | None = None) -> pd.DataFrame:
    """Rows from all files of a table's folder: right only for a table that was written once."""
    return pq.read_table(f"{warehouse}/{noun}/{part}", columns=columns, partitioning=None).to_pandas()
