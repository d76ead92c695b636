"""Lists with a positive, of a sample of users: each whole, and never more rows than asked for."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recspark.training.feed.users import read_lists

ROWS, USERS, KEYS = 6511, 10, ("day", "user")


def files(folder: Path) -> list[str]:
    """Row n has id n, user n % 10, day n % 2, so one list for each user, and value n + .25. Users 0 to 7 have one
    positive each, users 8 and 9 none."""
    paths = []
    for number, ids in enumerate(np.split(np.arange(ROWS), [4000])):
        columns = {
            "id": ids.astype(np.int32),
            "day": (ids % 2).astype(np.int32),
            "user": (ids % USERS).astype(np.int32),
            "a": (ids + 0.25).astype("f4"),
            "label": (ids < USERS - 2).astype("f4"),
        }
        pq.write_table(pa.table(columns), folder / f"{number}.parquet", row_group_size=700)
        paths.append(f"file://{folder}/{number}.parquet")
    return paths


def test_a_sample_has_all_rows_of_each_list(tmp_path: Path) -> None:
    rows = read_lists(files(tmp_path), ["id", "a"], KEYS, "label", max_rows=2000, seed=0)
    _, counts = np.unique(rows["id"] % USERS, return_counts=True)
    assert 0 < counts.sum() <= 2000
    assert set(counts) <= {651, 652}  # 6511 / 10
    np.testing.assert_array_equal(rows["a"], (rows["id"] + 0.25).astype(np.float32))


def test_lists_without_a_positive_take_no_room(tmp_path: Path) -> None:
    """Eight of ten users have a positive, in 651 or 652 rows: 5,209 rows fit although the file has more."""
    useful = [n for n in range(ROWS) if n % USERS < USERS - 2]
    rows = read_lists(files(tmp_path), ["id"], KEYS, "label", max_rows=len(useful), seed=0)
    assert sorted(rows["id"]) == useful


def test_the_same_user_has_lists_of_its_own_on_other_days(tmp_path: Path) -> None:
    """User 0 has a positive on day 0 and none on day 1: only its rows of day 0 are read."""
    day = np.arange(8) % 2
    columns = {"day": day, "user": np.zeros(8, int), "id": np.arange(8), "label": (np.arange(8) == 2).astype("f4")}
    pq.write_table(pa.table(columns), tmp_path / "days.parquet")
    rows = read_lists([f"file://{tmp_path}/days.parquet"], ["id"], KEYS, "label", max_rows=99, seed=0)
    assert sorted(rows["id"]) == [0, 2, 4, 6]


def test_without_a_positive_there_is_nothing_to_read(tmp_path: Path) -> None:
    columns = {"day": [1, 1], "user": [1, 2], "id": [1, 2], "label": np.zeros(2, "f4")}
    pq.write_table(pa.table(columns), tmp_path / "none.parquet")
    assert not len(read_lists([f"file://{tmp_path}/none.parquet"], ["id"], KEYS, "label", 99, 0)["id"])
