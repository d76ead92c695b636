"""Vectors as table cells (little-endian bytes) and back. A row of zeros, which is no content, is a null cell."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recspark.arrays import Array
from recspark.errors import DataError

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = get_args(Storage)
NUMBER = {"float32": "<f4", "float16": "<f2", "int8": "i1"}
LARGEST = {"float16": 65504.0, "int8": 127.0}
SCALE = np.dtype("<f4")  # type of the scale at the start of an int8 cell: the value of the number 1


def array_to_vectors(vectors: Array, storage: Storage = "float32") -> pa.BinaryArray:
    """Binary cells from float (n, d); an all-zero row becomes null.

    A cell has 4 d bytes, with float16 2 d, with int8 4 + d: the scale (the row's largest number over 127), then
    multiples of it.
    """
    found = has_content(vectors)
    content = np.ascontiguousarray(vectors[found], dtype=np.float32)
    if storage == "int8":
        scale = (np.abs(content).max(axis=1, keepdims=True) / LARGEST[storage]).astype(SCALE)
        scale = np.maximum(scale, np.finfo(np.float32).tiny)  # so that very small numbers are not divided by 0
        codes = np.rint(content / scale).astype(NUMBER[storage])
        cells = np.concatenate((scale.view(np.uint8), codes.view(np.uint8)), axis=1)
    else:
        limit = LARGEST.get(storage, np.inf)
        cells = np.clip(content, -limit, limit).astype(NUMBER[storage]).view(np.uint8)
    sizes = np.where(found, cells.shape[1], 0)
    ends = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    mask = pa.array(found).buffers()[1]
    buffers = [mask, pa.py_buffer(ends), pa.py_buffer(np.ascontiguousarray(cells))]
    return pa.Array.from_buffers(pa.binary(), len(vectors), buffers)


def vectors_to_array(
    column: Sequence[bytes | None] | pa.Array | pa.ChunkedArray, dim: int | None = None, storage: Storage = "float32"
) -> Array:
    """float32 (n, d) from binary cells (pyarrow, pandas or a list); a null becomes a row of zeros.

    Zeros are safe: their dot product with anything is 0, so no NaN spreads through a top-K; `has_content` finds them.
    `dim` is needed only where every cell may be null.

    Raises: DataError where the lengths of cells differ.
    """
    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        column = pa.array(list(column), pa.binary(), from_pandas=True)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    filled = [chunk.cast(pa.binary()).drop_null() for chunk in chunks]
    extra, width = (SCALE.itemsize if storage == "int8" else 0), np.dtype(NUMBER[storage]).itemsize
    sizes = {size for chunk in filled for size in pc.unique(pc.binary_length(chunk)).to_pylist()}
    sizes |= {extra + width * dim} if dim is not None else set()
    if len(sizes) > 1 or any(size < extra or (size - extra) % width for size in sizes):
        raise DataError(
            f"embedding column: found cells of {sorted(sizes)} bytes, expected one length, {width} bytes a number"
            f"{' after 4 of the scale' if extra else ''}; read the rows of one encoder only"
        )
    size = sizes.pop() if sizes else extra
    vectors = np.zeros((len(column), (size - extra) // width), dtype=np.float32)
    row = 0
    for chunk, content in zip(chunks, filled, strict=True):
        if len(content):
            low = int(np.frombuffer(content.buffers()[1], np.int32)[content.offset])
            cells = np.frombuffer(content.buffers()[2], np.uint8)[low : low + size * len(content)]
            vectors[row + np.flatnonzero(chunk.is_valid())] = _numbers(cells.reshape(len(content), size), storage)
        row += len(chunk)
    return vectors


def _numbers(cells: Array, storage: Storage) -> Array:
    """float32 (n, d) from bytes (n, size)."""
    cells = np.ascontiguousarray(cells)
    if storage != "int8":
        return cells.view(NUMBER[storage]).astype(np.float32)
    scale = np.ascontiguousarray(cells[:, : SCALE.itemsize]).view(SCALE)
    return np.asarray(cells[:, SCALE.itemsize :].view(NUMBER[storage]) * scale)


def has_content(vectors: Array) -> Array:
    """bool (n,): which rows of (n, d) have content; the others are all zeros."""
    return np.asarray(vectors.any(axis=1))
