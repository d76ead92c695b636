import numpy as np
import pytest
import scipy.sparse as sp

from recspark.stages.retriever import gram

SCHEMA = "item_idx array<int>, weight array<float>, time array<double>"


@pytest.mark.parametrize("partitions", [1, 3])
def test_equals_the_product(spark, partitions) -> None:
    """A purchase of 10 days ago counts a half with a half-life of 10 days; one that was returned does not count."""
    rng = np.random.default_rng(0)
    num_items = 300  # two strips
    rows, net, last = [], np.zeros((40, num_items)), np.full((40, num_items), -np.inf)
    for user in range(40):
        items = rng.integers(0, num_items, rng.integers(0, 12))
        weight = rng.choice([1.0, -1.0], len(items), p=[0.8, 0.2])
        time = np.sort(rng.choice([80.0, 90.0, 100.0], len(items)))
        rows.append((items.tolist(), weight.tolist(), time.tolist()))
        np.add.at(net[user], items, weight)
        np.maximum.at(last[user], items, time)
    expected = np.where(net > 0, 2.0 ** ((last - 100.0) / 10.0), 0.0)  # 1/4, 1/2, 1: whole multiples of 1/1024
    frame = spark.createDataFrame(rows, SCHEMA).repartition(partitions)
    found = gram.gram(frame, num_items, as_of_days=100.0, half_life_days=10.0)
    np.testing.assert_array_equal(found.toarray(), expected.T @ expected)


def test_no_positive_event_at_all(spark) -> None:
    frame = spark.createDataFrame([([1], [-1.0], [5.0]), ([], [], [])], SCHEMA)
    assert gram.gram(frame, 3, 10.0, 1.0).shape == (3, 3) and not gram.gram(frame, 3, 10.0, 1.0).nnz


def test_pack_and_back() -> None:
    matrix = sp.random(5, 9, density=0.4, format="csr", random_state=0)
    matrix.data = np.arange(1, matrix.nnz + 1)
    np.testing.assert_array_equal(gram.unpack(gram.pack(matrix), 9).toarray(), matrix.toarray())
