"""Somebody else's candidates: lists that come with the data instead of random negatives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.research.event_time_features import Lists
from recspark.metrics import offsets_of

COLUMNS = ["user_id", "item_id", "split"]
TEST, VALID = "test", "valid"


def read(folder: str, market: str) -> pd.DataFrame:
    """Rows (user_id, item_id, split) of `<market>_candidates.csv`, `.txt` (separated by blanks) or `.parquet`, none
    without such a file; without a split column all are test lists."""
    for ending in ("csv", "txt", "parquet"):
        file = Path(folder) / f"{market}_candidates.{ending}"
        if file.exists():
            rows = pd.read_parquet(file) if ending == "parquet" else pd.read_csv(file, sep=r",|\s+", engine="python")
            rows = rows if "split" in rows else rows.assign(split=TEST)
            rows["split"] = np.where(rows["split"].astype(str).str.startswith("val"), VALID, TEST)
            return rows[COLUMNS].astype(str).drop_duplicates()
    return pd.DataFrame(columns=COLUMNS, dtype=str)


def put(lists: Lists, labels: np.ndarray, given: pd.DataFrame, scenarios: set[int]) -> tuple[Lists, np.ndarray]:
    """The given rows (user, item: numbers) instead of the lists of those scenarios; a user without any gets none.

    The true item is not added: where it was not given, the list has no positive.
    """
    owner, truth = lists.owner, labels > 0
    right = np.full(len(lists.time), -1)
    right[owner[truth]] = lists.item_idx[truth]
    kept = ~np.isin(lists.scenario_idx[owner], list(scenarios))
    ours = np.isin(lists.scenario_idx[given["user"].to_numpy(int)], list(scenarios))
    user = np.concatenate((owner[kept], given["user"].to_numpy(int)[ours]))
    item = np.concatenate((lists.item_idx[kept], given["item"].to_numpy(int)[ours]))
    order = np.lexsort((item, user))
    user, item = user[order], item[order]
    placed = replace(lists, offsets=offsets_of(user, len(lists.time)), item_idx=item)
    return placed, (item == right[user]).astype(np.float32)
