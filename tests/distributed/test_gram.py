import numpy as np
import pytest
import scipy.sparse as sp

from recspark.distributed import gram


@pytest.mark.parametrize("partitions", [1, 3])
def test_equals_the_product(spark, partitions) -> None:
    rng = np.random.default_rng(0)
    num_items = 300  # two strips
    rows, expected = [], np.zeros((40, num_items))
    for user in range(40):
        items = rng.integers(0, num_items, rng.integers(0, 12))
        weight = rng.choice([1.0, -1.0], len(items), p=[0.8, 0.2])
        rows.append((items.tolist(), weight.tolist()))
        np.add.at(expected[user], items, weight)
    expected = (expected > 0).astype(float)  # a returned purchase is no purchase
    frame = spark.createDataFrame(rows, "item_idx array<int>, weight array<float>").repartition(partitions)
    np.testing.assert_array_equal(gram.gram(frame, num_items), expected.T @ expected)


def test_no_positive_event_at_all(spark) -> None:
    frame = spark.createDataFrame([([1], [-1.0]), ([], [])], "item_idx array<int>, weight array<float>")
    np.testing.assert_array_equal(gram.gram(frame, 3), np.zeros((3, 3)))


def test_pack_and_back() -> None:
    matrix = sp.random(5, 9, density=0.4, format="csr", random_state=0)
    matrix.data = np.arange(1, matrix.nnz + 1)
    np.testing.assert_array_equal(gram.unpack(gram.pack(matrix), 9).toarray(), matrix.toarray())
