import numpy as np
import pytest

from recspark.models.rankers.blend import blend, spread


def test_spread_by_hand() -> None:
    """Two lists: 1, 3 around 2, and 10, 10, 16 around 12; squares 1 + 1 + 4 + 4 + 16 = 26 over 5 - 2 free rows. Where
    the lists lie, 2 and 12, does not matter; a list of one row has no spread and no say."""
    lists = np.array([[0, 1], [0, 1], [0, 2], [0, 2], [0, 2], [5, 5]])
    scores = np.array([1.0, 3, 10, 10, 16, 99])
    assert spread(lists, scores) == pytest.approx((26 / 3) ** 0.5)
    assert spread(lists[[0, 2]], scores[[0, 2]]) == 0.0


def test_each_model_counts_in_its_own_units() -> None:
    """One speaks in thousands: (2000 / 1000 + 1 / 2) / 2 = 1.25 and (0 / 1000 + 3 / 2) / 2 = .75."""
    found = blend((np.array([2000.0, 0.0]), np.array([1.0, 3.0])), (1000.0, 2.0))
    np.testing.assert_allclose(found, [1.25, 0.75])


def test_a_model_that_says_nothing_has_no_say() -> None:
    """All its scores are equal: it moves all rows alike."""
    found = blend((np.zeros(3), np.array([3.0, 1.0, 2.0])), (0.0, 1.0))
    assert np.argsort(-found).tolist() == [0, 2, 1]
