"""History shards: the last events of each user, as of each row's date."""

from pathlib import Path

import numpy as np

from recspark.histories import LENGTH, USERS_A_SHARD, HistoryBook, finish, save_shard


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


def test_nobody_has_a_history(tmp_path: Path) -> None:
    folder = write(f"{tmp_path}/none", {2: []})
    assert (HistoryBook({0: folder}).block(np.array([2, 3]), np.zeros(2, int), 4) == -1).all()
