"""Where the rows of an epoch go: lanes, each cut into pools, and each rank's share of them.

An epoch is one sequence of row groups. It is cut into lanes of equal length, so a group may lie in two; batches take a
row of each lane in turn: row p of an epoch is row p // L of lane p % L. Rank r of w holds rows r, r + w ... of a
batch, so where w divides L, or L divides w, it needs a few lanes and reads no others. Lanes follow from the files
and the batch size alone, and so the batches do not depend on the number of ranks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_LANES = 4  # each has pools and a thread of its own
GROUPS_A_LANE = 2  # at least so many of the largest: what two lanes share is read twice


@dataclass(frozen=True)
class RowGroup:
    file: int
    number: int
    rows: int  # of them that count, see files.py


@dataclass(frozen=True)
class Piece:
    """Rows start:stop of a row group, of those that count."""

    group: RowGroup
    start: int
    stop: int


@dataclass(frozen=True)
class Share:
    """A rank's part of a lane: `rows` of the lane's part of a batch, and their `places` in the rank's part."""

    lane: int
    rows: slice
    places: slice


def num_lanes(groups: Sequence[RowGroup], batch_size: int, pool_rows: int) -> int:
    """A power of two that divides the batch size. 1 where all rows fit into one pool, which every rank keeps."""
    rows = sum(group.rows for group in groups)
    lanes = MAX_LANES if rows > pool_rows else 1
    largest = max(group.rows for group in groups)
    # a lane without a row in the last batch would have nothing to pad a rank's part with
    while lanes > 1 and (batch_size % lanes or rows < lanes * GROUPS_A_LANE * largest or 0 < rows % batch_size < lanes):
        lanes //= 2
    return lanes


def pools(groups: Sequence[RowGroup], lane: int, lanes: int, pool_rows: int) -> list[list[Piece]]:
    """One lane of an epoch, its row groups given in their order: pools of at least pool_rows / lanes rows, but for the
    last one."""
    each, rest = divmod(sum(group.rows for group in groups), lanes)
    start = lane * each + min(lane, rest)
    stop = start + each + (lane < rest)
    found: list[list[Piece]] = []
    at, rows = 0, pool_rows
    for group in groups:
        low, high = max(start - at, 0), min(stop - at, group.rows)
        inside = start < at < stop  # petastorm reads row groups one after the other, those without a row as well
        at += group.rows
        if low > high or (low == high and not inside):
            continue
        if rows * lanes >= pool_rows:
            found.append([])
            rows = 0
        found[-1].append(Piece(group, low, high))
        rows += high - low
    return found


def shares(lanes: int, rank: int, world_size: int) -> list[Share]:
    """One rank's part of a batch: row k of a lane's part is row k * lanes + lane of the batch."""
    step = world_size // math.gcd(lanes, world_size)
    return [
        Share(
            lane,
            slice(first, None, step),
            slice((first * lanes + lane) // world_size, None, step * lanes // world_size),
        )
        for lane in range(lanes)
        for first in range(step)
        if (first * lanes + lane) % world_size == rank
    ]
