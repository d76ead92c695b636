import numpy as np

from recspark import cells


def test_a_sparse_matrix_is_read_like_a_dense_one() -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((2, 5, 7)) < 0.3, rng.random((2, 5, 7)), 0.0).astype(np.float32)
    there = np.flatnonzero(dense.any(axis=0))
    values = dense.reshape(2, -1)[:, there]
    row, item = rng.integers(5, size=40), rng.integers(7, size=40)
    place = cells.place_of(there, cells.key_of(row.astype(np.int32), item.astype(np.int32), 7))
    found = cells.values_at(values, place, 0.0)
    assert found.dtype == np.float32 and (place < 0).any() and (place >= 0).any()
    np.testing.assert_array_equal(found, dense[:, row, item])


def test_a_matrix_without_cells() -> None:
    place = cells.place_of(np.zeros(0, np.int64), np.array([0, 3]))
    assert place.tolist() == [-1, -1]
    assert cells.values_at(np.zeros((4, 0), np.float32), place, 0.0).shape == (4, 2)
    assert np.isnan(cells.values_at(np.zeros(0), place, np.nan)).all()


def test_keys_do_not_overflow() -> None:
    assert cells.key_of(np.array([3000], np.int32), np.array([5], np.int32), 1_000_000).tolist() == [3_000_000_005]
