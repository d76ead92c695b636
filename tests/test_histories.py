"""Histories in memory and in shards, and the helpers for lists of different lengths."""

from pathlib import Path

import numpy as np

from recspark import model_folder
from recspark.histories import (
    LENGTH,
    USERS_A_SHARD,
    Histories,
    HistoryBook,
    erase_users,
    finish,
    keep,
    owners,
    per_list,
    ranges,
    save_shard,
    take,
)


def three_users() -> Histories:
    """User 0: items 5, 6, 7; user 1: nothing; user 2: item 8. All else counts up from 0."""
    number = np.arange(4.0)
    return Histories(np.array([0, 3, 3, 4]), np.array([5, 6, 7, 8]), number.astype(int), number, number, number, number)


def test_users_are_taken_in_any_order_without_their_newest_events() -> None:
    found = take(three_users(), np.array([2, 0, 1, 0]), drop=1)
    assert found.offsets.tolist() == [0, 1, 3, 3, 5]  # user 2 has one event only and keeps it
    assert found.item_idx.tolist() == [8, 5, 6, 5, 6]
    assert found.time.tolist() == [3.0, 0.0, 1.0, 0.0, 1.0]


def test_events_are_kept_by_a_mask() -> None:
    found = keep(three_users(), np.array([True, False, True, False]))
    assert (found.offsets.tolist(), found.item_idx.tolist()) == ([0, 2, 2, 2], [5, 7])
    assert found.price.tolist() == [0.0, 2.0]


def test_owners_and_ranges_of_rows() -> None:
    for offsets in (np.array([0, 2, 2, 3]), np.array([0, 2, 2, 3], np.int32)):
        assert owners(offsets).tolist() == [0, 0, 2] and owners(offsets).dtype == np.int64
    assert ranges(np.array([2, 0, 3])).tolist() == [0, 1, 0, 1, 2]
    assert len(ranges(np.array([], np.int64))) == len(owners(np.array([0]))) == 0


def test_a_reduction_of_each_list() -> None:
    values, list_idx = np.array([[3.0, np.nan], [1.0, np.nan], [2.0, 5.0]], np.float32), np.array([2, 0, 2])
    found = per_list(np.fmin, values, list_idx, 3, np.nan)
    np.testing.assert_array_equal(found, [[1.0, np.nan], [np.nan, np.nan], [2.0, 5.0]])
    assert found.dtype == np.float32
    assert per_list(np.maximum, values[:, 0], list_idx, 4, -np.inf).tolist() == [1.0, -np.inf, 3.0, -np.inf]


def write(folder: str, events: dict[int, list[int]]) -> str:
    """`events`: user_idx -> items, oldest first."""
    shards = sorted({user // USERS_A_SHARD for user in events})
    for shard in shards:
        users = [user for user in events if user // USERS_A_SHARD == shard]
        items = np.array([item for user in users for item in events[user]], np.int64)
        offsets = np.concatenate(([0], np.cumsum([len(events[user]) for user in users])))
        save_shard(folder, shard, np.array(users), offsets, items, items * 0, items * 1.0)
    finish(folder, shards, {})
    return folder


def test_newest_first_padded_per_date_and_shard(tmp_path: Path) -> None:
    far = USERS_A_SHARD + 4
    early = write(f"{tmp_path}/early", {7: [1, 2], 0: [5]})
    late = write(f"{tmp_path}/late", {7: [1, 2, 3, 4], 0: [5], far: [8, 9], 3: []})
    book = HistoryBook({10: early, 17: late})
    user = np.array([7, 7, 0, far, far, 3, -1, 1])
    day = np.array([10, 17, 17, 17, 10, 17, 17, 10])
    expected = [[2, 1, -1], [4, 3, 2], [5, -1, -1], [9, 8, -1], [-1] * 3, [-1] * 3, [-1] * 3, [-1] * 3]
    block = book.block(user, day, 3)
    assert block.dtype == np.int32
    np.testing.assert_array_equal(block, expected)
    backwards = book.block(user[::-1], day[::-1], 3)
    np.testing.assert_array_equal(backwards, expected[::-1])


def test_only_the_last_events_are_kept(tmp_path: Path) -> None:
    folder = write(f"{tmp_path}/long", {0: list(range(80)), 1: [100]})
    block = HistoryBook({0: folder}).block(np.array([0, 1]), np.zeros(2, int), LENGTH + 1)
    np.testing.assert_array_equal(block[0], [*range(79, 29, -1), -1])  # 50 events: 79 down to 30
    assert block[1].tolist() == [100] + [-1] * 50


def test_a_user_without_events_has_no_history(tmp_path: Path) -> None:
    folder = write(f"{tmp_path}/none", {2: []})
    assert (HistoryBook({0: folder}).block(np.array([2, 3]), np.zeros(2, int), 4) == -1).all()


def test_erased_users_have_no_history_and_others_keep_theirs(tmp_path: Path) -> None:
    far = USERS_A_SHARD + 4
    folder = write(f"{tmp_path}/one", {0: [5], 3: [1, 2], 7: [3, 4, 6], far: [8, 9], far + 1: []})
    manifest = Path(folder, "shard-1", "manifest.json")
    before = manifest.stat().st_mtime_ns
    assert erase_users(folder, np.array([3, 1, far + 1])) == 2  # 1 never had an event, far + 1 has none
    assert manifest.stat().st_mtime_ns == before
    assert erase_users(folder, np.array([0, far])) == 1 + 2
    block = HistoryBook({0: folder}).block(np.array([0, 3, 7, far]), np.zeros(4, int), 3)
    assert block.tolist() == [[-1] * 3, [-1] * 3, [6, 4, 3], [-1] * 3]
    assert model_folder.exists(f"{folder}/shard-0") and not model_folder.damaged(f"{folder}/shard-0")
    assert model_folder.read_manifest(f"{folder}/shard-0")["users"] == 1
