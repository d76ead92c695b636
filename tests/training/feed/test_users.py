"""A sample of users: each with all rows, and never more rows than asked for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recspark.training.feed.users import read_users

ROWS = 6511


def files(folder: Path) -> list[str]:
    """Row n has id n, user n % 10, value n + 0.25; two files."""
    paths = []
    for number, ids in enumerate(np.split(np.arange(ROWS), [4000])):
        columns = {"id": ids.astype(np.int32), "user": (ids % 10).astype(np.int32), "a": (ids + 0.25).astype("f4")}
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=700)
        paths.append(f"file://{folder}/{number}.parquet")
    return paths


def test_a_sample_has_all_rows_of_each_user(tmp_path: Path) -> None:
    rows = read_users(files(tmp_path), ["id", "a"], "user", max_rows=2000, seed=0)
    _, counts = np.unique(rows["id"] % 10, return_counts=True)
    assert 0 < counts.sum() <= 2000
    assert set(counts) <= {651, 652}  # 6511 / 10
    np.testing.assert_array_equal(rows["a"], (rows["id"] + 0.25).astype(np.float32))
    every = read_users(files(tmp_path), ["id"], "user", max_rows=ROWS, seed=0)
    assert sorted(every["id"]) == list(range(ROWS))
