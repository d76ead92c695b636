import numpy as np

from benchmarks.research.ratings import ratings


def test_every_rating_is_in_one_row_of_a_block() -> None:
    row = np.array([2, 0, 2, 2, 0])  # row 1 has none
    seen: dict[int, set[int]] = {}
    for block in ratings.blocks(row, 3):
        for r, at, here in zip(block.row_B, block.at_BL, block.here_BL, strict=True):
            seen[int(r)] = set(at[here > 0].tolist())
    assert seen == {0: {1, 4}, 1: set(), 2: {0, 2, 3}}


def test_blocks_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(ratings, "ENTRIES_A_BLOCK", 4)
    shapes = [block.at_BL.shape for block in ratings.blocks(np.array([0, 0, 0, 1, 1, 2, 2]), 3)]
    assert shapes == [(1, 3), (2, 2)]  # 4 // 3 = 1 row of three, then 4 // 2 = 2 rows of two


def test_mean_is_shrunk() -> None:
    found = ratings.mean_of(np.array([0, 0]), np.array([4.0, 5.0]), 2, 1.0, 3.0)
    np.testing.assert_allclose(found, [(4 + 5 + 3) / 3, 3.0])
