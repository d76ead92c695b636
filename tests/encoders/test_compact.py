"""Principal components, and their cost in neighbours."""

import math

import numpy as np
import pytest

from recspark.encoders import compact


def test_one_direction_is_all_there_is():
    """Points on the line (3, 4) t around (1, 1): one component, (0.6, 0.8) up to its sign, keeps 5 t."""
    t = np.array([-2.0, -1.0, 0.5, 2.5])
    points = np.outer(t, [3.0, 4.0]).astype(np.float32) + 1
    found = compact.fit(np.vstack((points, np.zeros((3, 2), np.float32))), 1, whiten=False, seed=0)
    np.testing.assert_allclose(np.abs(found(points)[:, 0]), np.abs(5 * t), rtol=1e-5)  # rows of zeros were not fitted
    np.testing.assert_allclose(found.mean, [1, 1], rtol=1e-5)
    white = compact.fit(points, 1, whiten=True, seed=0)(points)
    np.testing.assert_allclose(white.std(ddof=1), 1, rtol=1e-5)
    assert white.dtype == np.float32


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ([[1.0], [1.1], [-1.0], [-1.1]], 1.0),  # length does not count: the same pairs
        ([[1.0], [-1.1], [-1.0], [1.1]], 0.0),  # 0 goes with 3, and 1 with 2
    ],
)
def test_recall_by_hand(after, expected):
    """Of four vectors the first two and the last two are nearest; the row without content does not count."""
    before = np.array([[1, 0.1], [1, 0], [-1, 0.1], [-1, 0], [0, 0]], np.float32)
    after = np.array([*after, [5.0]], np.float32)
    assert compact.recall(before, after, nearest=1) == expected


def test_one_vector_has_no_neighbour():
    assert math.isnan(compact.recall(np.ones((1, 2)), np.ones((1, 2))))
