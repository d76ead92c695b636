"""Every row of an epoch is in one lane and with one rank, and the lanes are equal."""

import numpy as np
import pytest

from recspark.training.feed.lanes import RowGroup, num_lanes, pools, shares


def groups(*rows: int) -> list[RowGroup]:
    return [RowGroup(0, number, size) for number, size in enumerate(rows)]


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_lanes_are_equal_and_hold_every_row_once(lanes: int) -> None:
    of = groups(70, 1, 33, 70, 70, 5)  # 249 rows: lanes of 62 and 63
    seen = []
    for lane in range(lanes):
        found = [piece for pool in pools(of, lane, lanes, 100) for piece in pool]
        assert sum(piece.stop - piece.start for piece in found) in (249 // lanes, 249 // lanes + 1)
        seen += [(piece.group.number, row) for piece in found for row in range(piece.start, piece.stop)]
    assert seen == [(group.number, row) for group in of for row in range(group.rows)]


def test_pools_are_whole_row_groups_that_reach_their_size() -> None:
    sizes = [[p.stop - p.start for p in pool] for pool in pools(groups(70, 1, 33, 70, 70, 5), 0, 1, 100)]
    assert sizes == [[70, 1, 33], [70, 70], [5]]  # 104 and 140, where 71 and 70 were not yet 100


@pytest.mark.parametrize("lanes", [1, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 6, 8])
def test_a_rank_holds_every_wth_row_of_a_batch(lanes: int, world: int) -> None:
    part = 24
    batch = np.arange(lanes * part).reshape(part, lanes)  # row k of lane l
    for rank in range(world):
        mine = np.full(lanes * part // world, -1)
        for share in shares(lanes, rank, world):
            mine[share.places] = batch[:, share.lane][share.rows]
        assert mine.tolist() == list(range(rank, lanes * part, world))
        if world & (world - 1) == 0:  # a power of two
            assert len(shares(lanes, rank, world)) == max(1, lanes // world)


@pytest.mark.parametrize(
    ("rows", "batch_size", "expected"),
    [
        ([100] * 10, 256, 4),
        ([100] * 5, 256, 2),  # of four lanes each would have 125 rows, not two groups of the largest
        ([100] * 3, 256, 1),
        ([100] * 10, 250, 2),
        ([100] * 10, 255, 1),  # an odd batch cannot be dealt from two
        ([100] * 10 + [27], 256, 2),  # 1027 = 4 x 256 + 3: the fourth lane would have no row in the last batch
        ([50] * 3, 256, 1),  # one pool
    ],
)
def test_number_of_lanes(rows: list[int], batch_size: int, expected: int) -> None:
    assert num_lanes(groups(*rows), batch_size, pool_rows=150) == expected
