import numpy as np
import pytest

from recspark.models.rankers.blend import blend, spread


def test_spread_by_hand() -> None:
    """Two lists: 1, 3 around 2, and 10, 10, 16 around 12; squares 1 + 1 + 4 + 4 + 16 = 26 over 5 - 2 free rows. The
    lists' means, 2 and 12, do not matter; a list of one row has no spread and does not count."""
    lists = np.array([[0, 1], [0, 1], [0, 2], [0, 2], [0, 2], [5, 5]])
    scores = np.array([1.0, 3, 10, 10, 16, 99])
    assert spread(lists, scores) == pytest.approx((26 / 3) ** 0.5)
    assert spread(lists[[0, 2]], scores[[0, 2]]) == 0.0


def test_scores_are_divided_by_their_spread() -> None:
    """The scores of one model are thousands: (2000 / 1000 + 1 / 2) / 2 = 1.25 and (0 / 1000 + 3 / 2) / 2 = .75."""
    found = blend((np.array([2000.0, 0.0]), np.array([1.0, 3.0])), (1000.0, 2.0))
    np.testing.assert_allclose(found, [1.25, 0.75])


def test_a_model_with_equal_scores_changes_no_order() -> None:
    """All its scores are equal, so it adds the same to all rows."""
    found = blend((np.zeros(3), np.array([3.0, 1.0, 2.0])), (0.0, 1.0))
    assert np.argsort(-found).tolist() == [0, 2, 1]
