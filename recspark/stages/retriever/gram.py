"""The Gram matrix X^T X of all users, summed by Spark in strips of rows; the driver only puts the strips together."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from pyspark.sql import DataFrame

from recspark import columns as c
from recspark.models.retrievers import affinity, linear

SCHEMA = "strip int, matrix binary"
ARROW = pa.schema([("strip", pa.int32()), ("matrix", pa.binary())])


def gram(histories: DataFrame, num_items: int, as_of_days: float, half_life_days: float) -> sp.csr_matrix:
    """Sum over users of the product of their affinities to two items; see `affinity.recent`.

    Affinities are whole multiples of 1 / LEVELS, so the sum is exact in any order.
    Memory: a task holds its partition's positive pairs (12 bytes each) and one strip; the driver
    12 bytes an entry of the result.

    Returns: float64 (I, I).
    """
    events = histories.select(c.ITEM_IDX, c.WEIGHT, "time")
    strips = events.mapInArrow(
        partial(_partition_strips, num_items=num_items, as_of_days=as_of_days, half_life_days=half_life_days), SCHEMA
    )
    # Not a partial: Spark 4.2 reads the function's type hints, which a partial does not have.
    merged = strips.groupBy("strip").applyInArrow(lambda parts: _merged(parts, num_items), SCHEMA).toArrow()
    rows = zip(merged.column("strip").to_pylist(), merged.column("matrix"), strict=True)
    gram_II = linear.assemble(((strip, unpack(cell.as_buffer(), num_items)) for strip, cell in rows), num_items)
    gram_II.data /= affinity.LEVELS**2
    return gram_II


def pack(matrix: sp.csr_matrix) -> bytes:
    """A CSR matrix as bytes: rows, entries, row ends, columns (int32), values (float64)."""
    numbers = np.concatenate(([matrix.shape[0], matrix.nnz], matrix.indptr[1:], matrix.indices))
    return bytes(numbers.astype("<i4").tobytes() + matrix.data.astype("<f8").tobytes())


def unpack(cell: bytes | pa.Buffer, num_items: int) -> sp.csr_matrix:
    """The inverse of `pack`, float64 (rows, num_items)."""
    rows, entries = np.frombuffer(cell, dtype="<i4", count=2).tolist()
    ends, indices = np.split(np.frombuffer(cell, dtype="<i4", count=rows + entries, offset=8), [rows])
    data = np.frombuffer(cell, dtype="<f8", count=entries, offset=8 + 4 * (rows + entries))
    return sp.csr_matrix((data, indices, np.concatenate(([0], ends))), shape=(rows, num_items))


def _partition_strips(
    batches: Iterator[pa.RecordBatch], num_items: int, as_of_days: float, half_life_days: float
) -> Iterator[pa.RecordBatch]:
    parts = []
    for batch in batches:
        item = batch.column(c.ITEM_IDX)
        offsets = item.offsets.to_numpy() - item.offsets[0].as_py()
        item_idx, weight, time = (batch.column(name).flatten().to_numpy() for name in (c.ITEM_IDX, c.WEIGHT, "time"))
        parts.append(affinity.recent(offsets, item_idx, weight, time, num_items, as_of_days, half_life_days))
    if parts:
        history_UI = sp.vstack(parts, format="csr").astype(np.float64) * affinity.LEVELS
        for strip, matrix in linear.gram_blocks(history_UI):
            yield pack_batch(strip, matrix)


def _merged(strips: pa.Table, num_items: int) -> pa.Table:
    return pa.Table.from_batches([pack_batch(strips.column("strip")[0].as_py(), merge(strips, num_items))])


def merge(strips: pa.Table, num_items: int) -> sp.csr_matrix:
    """The sum of one strip's parts."""
    total: sp.csr_matrix | None = None
    for cell in strips.column("matrix"):
        part = unpack(cell.as_buffer(), num_items)
        total = part if total is None else total + part
    assert total is not None
    return total


def pack_batch(strip: int, matrix: sp.csr_matrix) -> pa.RecordBatch:
    """One row of SCHEMA."""
    return pa.record_batch([pa.array([strip], pa.int32()), pa.array([pack(matrix)], pa.binary())], schema=ARROW)
