import numpy as np
import pytest

from recspark.features import WINDOWS
from recspark.stages.retriever.item_stats import item_stats
from recspark.tables.histories import HISTORIES

# As of day 100. User 0: item 0 bought in group 0 (day 99) and again in group 2 (day 99.5), item 1 bought on day 40 and
# returned on day 90. User 1: item 0 bought in group 2 on day 98. Item 2 has no event.
USERS = [
    (0, ["a"], [1, 1, 0, 0], [2, 2, 0, 2], [40.0, 90.0, 99.0, 99.5], [1.0, -1.0, 1.0, 1.0], [5.0, -5.0, 2.0, 4.0],
     [1.0, 1.0, float("nan"), 3.0]),
    (1, ["a"], [0], [2], [98.0], [1.0], [6.0], [5.0]),
]  # fmt: skip
ALL, SEVEN = WINDOWS.index(0), WINDOWS.index(7)


@pytest.fixture(scope="module", params=[1, 2])
def found(spark, request):
    frame = spark.createDataFrame(USERS, HISTORIES.schema).repartition(request.param, "user_idx")
    return item_stats(frame, np.array([0, 2]), 3, as_of_days=100.0, half_life_days=1.0)


def test_counts(found) -> None:
    stats, _ = found
    assert stats.counts.shape == (len(WINDOWS), 3)
    assert stats.counts[ALL].tolist() == [3, 1, 0] and stats.counts[SEVEN].tolist() == [3, 0, 0]
    # user 0 bought item 0 in group 0 first, so only user 1 is new in group 2
    assert stats.new_counts[ALL].tolist() == [2, 1, 0]
    # group row * 3 + item: item 0 in both groups, item 1 in the second
    assert stats.cells.tolist() == [0, 3, 4]
    assert stats.cell_counts[ALL].tolist() == [1, 2, 1] and stats.cell_counts[SEVEN].tolist() == [1, 2, 0]


def test_times_prices_and_returns(found) -> None:
    stats, _ = found
    nan = np.nan
    np.testing.assert_array_equal(stats.first_time, [98, 40, nan])
    np.testing.assert_array_equal(stats.last_time, [99.5, 40, nan])
    assert stats.cell_first.tolist() == [99, 98, 40] and stats.cell_last.tolist() == [99, 99.5, 40]
    np.testing.assert_allclose(stats.price, [(3 + 5) / 2, 1, nan])
    np.testing.assert_allclose(stats.value, [(2 + 4 + 6) / 3, 5, nan])
    np.testing.assert_allclose(stats.return_share, [0, 1 / 2, 0])


def test_decayed_net_counts(found) -> None:
    _, (cell, net) = found
    # half-life 1 day: ages 1, .5 and 2; item 1: 2^-60 is below the quantum, minus 2^-10
    assert cell.tolist() == [0, 3, 4]
    np.testing.assert_allclose(net, [1 / 2, 2**-0.5 + 1 / 4, -(2.0**-10)], atol=2.0**-40)


def test_a_robot_is_one_user(spark) -> None:
    """User 0 has 200 events of item 0 on day 99, users 1 and 2 one each of item 1."""
    robot = (0, ["a"], [0] * 200, [2] * 200, [99.0] * 200, [1.0] * 200, [1.0] * 200, [1.0] * 200)
    others = [(user, ["a"], [1], [2], [99.0], [1.0], [1.0], [1.0]) for user in (1, 2)]
    frame = spark.createDataFrame([robot, *others], HISTORIES.schema)
    stats, (cell, net) = item_stats(frame, np.array([0, 2]), 2, as_of_days=100.0, half_life_days=1.0)
    assert cell.tolist() == [2, 3] and net.tolist() == [1 / 2, 1]  # both in the second group
    assert stats.counts[ALL].tolist() == [200, 2]
    assert stats.new_counts[ALL].tolist() == [1, 2]
