"""X^T X of all users, aggregated by Spark in strips of rows: the driver only puts finished strips in their place."""

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


def gram(histories: DataFrame, num_items: int) -> np.ndarray:
    """Users who had both items, float64 (I, I); diagonal: users who had the item. Whole numbers, so exact in any order.

    Memory: a task holds its partition's positive pairs (8 bytes each) and one strip; the driver the dense result.
    """
    pairs = histories.select(c.ITEM_IDX, c.WEIGHT)
    strips = pairs.mapInArrow(partial(_partition_strips, num_items=num_items), SCHEMA)
    merged = strips.groupBy("strip").applyInArrow(partial(_merge, num_items=num_items), SCHEMA).toArrow()
    rows = zip(merged.column("strip").to_pylist(), merged.column("matrix"), strict=True)
    return linear.assemble(((strip, unpack(cell.as_buffer(), num_items)) for strip, cell in rows), num_items)


def pack(matrix: sp.csr_matrix) -> bytes:
    """A CSR matrix of whole numbers < 2^31 as bytes: rows, entries, row ends, columns, values, all int32."""
    parts = (np.array(matrix.indptr[1:]), matrix.indices, matrix.data)
    return np.concatenate(([matrix.shape[0], matrix.nnz], *parts)).astype("<i4").tobytes()


def unpack(cell: bytes | pa.Buffer, num_items: int) -> sp.csr_matrix:
    """The inverse of `pack`, int32 (rows, num_items)."""
    numbers = np.frombuffer(cell, dtype="<i4")
    rows, entries = int(numbers[0]), int(numbers[1])
    ends, indices, data = np.split(numbers[2:], [rows, rows + entries])
    return sp.csr_matrix((data, indices, np.concatenate(([0], ends))), shape=(rows, num_items))


def _partition_strips(batches: Iterator[pa.RecordBatch], num_items: int) -> Iterator[pa.RecordBatch]:
    parts = []
    for batch in batches:
        item, weight = batch.column(c.ITEM_IDX), batch.column(c.WEIGHT)
        offsets = item.offsets.to_numpy() - item.offsets[0].as_py()
        parts.append(affinity.positives(offsets, item.flatten().to_numpy(), weight.flatten().to_numpy(), num_items))
    if parts:
        history_UI = sp.vstack(parts, format="csr").astype(np.int32)
        for strip, matrix in linear.gram_blocks(history_UI):
            yield _batch(strip, matrix)


def _merge(strips: pa.Table, num_items: int) -> pa.Table:
    total: sp.csr_matrix | None = None
    for cell in strips.column("matrix"):
        part = unpack(cell.as_buffer(), num_items)
        total = part if total is None else total + part
    assert total is not None
    return pa.Table.from_batches([_batch(strips.column("strip")[0].as_py(), total)])


def _batch(strip: int, matrix: sp.csr_matrix) -> pa.RecordBatch:
    return pa.record_batch([pa.array([strip], pa.int32()), pa.array([pack(matrix)], pa.binary())], schema=ARROW)
