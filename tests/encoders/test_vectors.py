"""Vectors as binary cells and back."""

import struct

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recspark.encoders.vectors import STORAGES, array_to_vectors, has_content, vectors_to_array
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


# -- smaller cells -----------------------------------------------------------------------------------------------------


def test_int8_by_hand():
    """The largest number is 127 steps: 2.54 / 127 = 0.02, so 1.0 is 50 steps and -0.031 is -1.55, rounded to -2."""
    found = array_to_vectors(np.array([[2.54, 1.0, -0.031], [0, 0, 0]], np.float32), "int8")
    assert found.to_pylist() == [struct.pack("<f3b", np.float32(2.54) / np.float32(127), 127, 50, -2), None]
    np.testing.assert_allclose(vectors_to_array(found, storage="int8"), [[2.54, 1.0, -0.04], [0, 0, 0]], rtol=1e-6)


def test_float16_by_hand_and_what_is_too_large_for_it():
    found = array_to_vectors(np.array([[0.1, 1e6]], np.float32), "float16")
    assert found.to_pylist() == [struct.pack("<2e", 0.1, 65504)]
    np.testing.assert_array_equal(vectors_to_array(found, storage="float16"), [[np.float16(0.1), 65504]])


@pytest.mark.parametrize("storage", STORAGES)
def test_slices_and_chunks_read_back(storage):
    rows = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    rows[::5] = 0
    column = array_to_vectors(rows, storage)
    whole = vectors_to_array(column, storage=storage)
    np.testing.assert_allclose(whole, rows, atol={"float32": 0, "float16": 2e-3, "int8": 0.02}[storage])
    np.testing.assert_array_equal(has_content(whole), has_content(rows))
    cut = pa.chunked_array([column[:11], column[11:11], column[11:].cast(pa.large_binary()).cast(pa.binary())]).slice(3)
    np.testing.assert_array_equal(vectors_to_array(cut, storage=storage), whole[3:])
    np.testing.assert_array_equal(vectors_to_array(column.to_pylist(), storage=storage), whole)


def test_numbers_too_small_to_divide_by_are_zeros():
    """1e-40 over 127 is no float32 any more."""
    found = vectors_to_array(array_to_vectors(np.full((1, 2), 1e-40, np.float32), "int8"), storage="int8")
    np.testing.assert_array_equal(found, np.zeros((1, 2)))


def test_an_int8_cell_without_its_scale_is_refused():
    with pytest.raises(DataError, match="1 bytes a number after 4 of the scale"):
        vectors_to_array([b"123"], storage="int8")
