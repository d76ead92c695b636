import numpy as np
import pytest

from benchmarks.research.ratings import like_features
from benchmarks.research.ratings.ratings import Ratings

# Users 0 and 1 like item 0; of them user 0 likes item 1, user 1 does not. User 2 likes item 1. Item 2 is new.
KNOWN = Ratings(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1]), np.array([1.0, 1.0, 1.0, 0.0, 1.0]), 4, 3)
CONTENT = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
# Row 0: user 3, without known labels, liked item 0; the item is 1. Row 1: user 1 liked nothing yet; the item is 2.
ROWS = like_features.Rows(np.array([3, 1]), np.array([1, 2]), np.array([0]), np.array([0, 1, 1]))


@pytest.fixture
def found() -> dict[str, np.ndarray]:
    return like_features.features(KNOWN, ROWS, CONTENT)


def test_means_and_counts(found: dict[str, np.ndarray]) -> None:
    overall = 4 / 5
    np.testing.assert_allclose(found["item_mean"], [(2 + 5 * overall) / (3 + 5), overall])
    np.testing.assert_allclose(found["item_count"], [3, 0])
    np.testing.assert_allclose(found["liked"], [1, 0])
    np.testing.assert_allclose(found["liked_mean_of_items"], [(2 + 5 * overall) / (2 + 5), np.nan])


def test_users_who_like_the_history_are_counted(found: dict[str, np.ndarray]) -> None:
    """Two users like item 0 and rated item 1, one of them likes it: 1 - mean * 2 = 1 - 0.75 * 2 = -0.5."""
    np.testing.assert_allclose(found["company"], [-0.5 / (2 + 20), 0.0])
    np.testing.assert_allclose(found["company_rows"], [2, 0])
    np.testing.assert_allclose(found["company_each"], [-0.5 / (2 + 5), np.nan])


def test_content_is_compared_with_liked_and_disliked_items(found: dict[str, np.ndarray]) -> None:
    for name in ("content_liked", "content_liked_best", "content_liked_recent"):
        np.testing.assert_allclose(found[name], [0.6, np.nan])  # item 1 and item 0
    for name in ("content_disliked", "content_disliked_best", "content_disliked_recent"):
        np.testing.assert_allclose(found[name], [np.nan, 0.8])  # item 2 and item 1, which user 1 dislikes


def test_best_and_recent_are_few() -> None:
    """Twelve liked: the three nearest are all ones, the ten newest have one of them."""
    history = np.array([0, 0] + [2] * 9 + [0])
    rows = like_features.Rows(np.array([3]), np.array([0]), history, np.array([0, 12]))
    found = like_features.features(KNOWN, rows, CONTENT)
    np.testing.assert_allclose(found["content_liked"], [3 / 12])
    np.testing.assert_allclose(found["content_liked_best"], [1.0])
    np.testing.assert_allclose(found["content_liked_recent"], [1 / 10])
