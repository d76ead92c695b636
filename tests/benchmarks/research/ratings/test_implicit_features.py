import numpy as np

from benchmarks.research.ratings import implicit_features
from benchmarks.research.ratings.ratings import Ratings


def test_two_groups_of_users_and_items_are_separated() -> None:
    """Users 0-9 seldom rate items 10-19, and users 10-19 items 0-9: the vector after the counts separates them."""
    same = np.arange(20)[:, None] // 10 == np.arange(20) // 10
    user, item = np.nonzero(np.random.default_rng(0).random((20, 20)) < np.where(same, 0.9, 0.1))
    users, items = implicit_features.features(Ratings(user, item, np.ones(len(user)), 20, 20), 1, 0)
    assert users.shape == items.shape == (20, 2)
    for found in (users, items):
        assert len(set(np.sign(found[:10, 1]))) == 1
        assert (np.sign(found[:10, 1]) != np.sign(found[10:, 1])).all()
        np.testing.assert_allclose(found.mean(axis=0), 0.0, atol=1e-9)
        np.testing.assert_allclose(found.std(axis=0), 1.0)
    order = np.argsort(np.bincount(user), kind="stable")
    assert (np.diff(users[order, 0]) >= -1e-12).all()  # more ratings, larger first feature
