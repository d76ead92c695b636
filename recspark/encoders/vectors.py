"""Vectors as table cells (float32 little-endian bytes) and back. No content: a row of zeros here, null there."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from recspark.errors import DataError


def array_to_vectors(vectors: np.ndarray) -> pa.BinaryArray:
    """Binary cells of 4 * d bytes from float (n, d); an all-zero row becomes null."""
    cells = np.ascontiguousarray(vectors, dtype="<f4")
    found = has_content(cells)
    return pa.array([row.tobytes() if ok else None for row, ok in zip(cells, found, strict=True)], type=pa.binary())


def vectors_to_array(column: Sequence[bytes | None] | pa.Array | pa.ChunkedArray, dim: int | None = None) -> np.ndarray:
    """float32 (n, d) from binary cells (pyarrow, pandas or a list); a null becomes a row of zeros.

    Zeros because they are safe: their dot product with anything is 0, so no NaN spreads through a top-K. `has_content`
    tells them apart. `dim` is needed only where every cell may be null. Raises DataError where lengths differ.
    """
    cells = column.to_pylist() if isinstance(column, (pa.Array, pa.ChunkedArray)) else list(column)
    rows = [row for row, cell in enumerate(cells) if isinstance(cell, (bytes, bytearray, memoryview))]  # pandas: NaN
    sizes = {len(cells[row]) for row in rows} | ({4 * dim} if dim is not None else set())
    if len(sizes) > 1 or any(size % 4 for size in sizes):
        raise DataError(
            f"embedding column: found cells of {sorted(sizes)} bytes, expected one length, 4 bytes a number; "
            "read the rows of one encoder only"
        )
    vectors = np.zeros((len(cells), sizes.pop() // 4 if sizes else 0), dtype=np.float32)
    if rows:
        vectors[rows] = np.frombuffer(b"".join(cells[row] for row in rows), dtype="<f4").reshape(len(rows), -1)
    return vectors


def has_content(vectors: np.ndarray) -> np.ndarray:
    """bool (n,): which rows of (n, d) stand for something; the others are all zeros."""
    return vectors.any(axis=1)
