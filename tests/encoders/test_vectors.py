"""Vectors as binary cells and back."""

import struct

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recspark.encoders.vectors import array_to_vectors, has_content, vectors_to_array
from recspark.errors import DataError

ROWS = np.array([[1.5, -2.0], [0.0, 0.0], [0.0, 3.0]], dtype=np.float32)
CELLS = [struct.pack("<2f", 1.5, -2.0), None, struct.pack("<2f", 0.0, 3.0)]


def test_cells_are_little_endian_float32_and_zeros_are_null():
    assert array_to_vectors(ROWS).to_pylist() == CELLS
    assert array_to_vectors(ROWS.astype(np.float64)[:, ::1]).to_pylist() == CELLS
    np.testing.assert_array_equal(has_content(ROWS), [True, False, True])


@pytest.mark.parametrize(
    "column",
    [
        CELLS,
        pa.array(CELLS),
        pa.chunked_array([CELLS[:1], CELLS[1:]]),
        pd.Series(CELLS),
        pd.Series(CELLS).where(lambda s: s.notna(), np.nan),
    ],
    ids=["list", "arrow", "chunked", "pandas", "pandas-nan"],
)
def test_every_kind_of_column_reads_back(column):
    found = vectors_to_array(column)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ROWS)


def test_dim_shapes_what_has_no_cell():
    assert vectors_to_array([None, None], dim=3).shape == (2, 3)
    assert vectors_to_array([]).shape == (0, 0)
    assert vectors_to_array(array_to_vectors(ROWS)[:0], dim=2).shape == (0, 2)


@pytest.mark.parametrize(("cells", "dim"), [([b"1234", b"12345678"], None), ([b"1234"], 2), ([b"123"], None)])
def test_mixed_lengths_are_refused(cells, dim):
    with pytest.raises(DataError, match="expected one length, 4 bytes a number"):
        vectors_to_array(cells, dim)
