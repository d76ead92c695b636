import numpy as np
import pytest

from benchmarks.research.ratings import factors
from benchmarks.research.ratings.ratings import Ratings

QUICK = {"num_factors": 4, "num_burn_in": 15, "num_samples": 15}


def planted(seed: int = 0) -> tuple[np.ndarray, Ratings, tuple[np.ndarray, np.ndarray]]:
    """120 users x 60 items of rank 2 plus noise of 0.1; 40 % are known, (users, items) of the rest are returned."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(120, 2)) @ rng.normal(size=(60, 2)).T + 1.0
    seen = rng.random(truth.shape) < 0.4
    user, item = np.nonzero(seen)
    noisy = truth[user, item] + 0.1 * rng.normal(size=len(user))
    return truth, Ratings(user, item, noisy, 120, 60), np.nonzero(~seen)


def fitted(ratings: Ratings, users: np.ndarray | None = None, ordered: bool = False) -> factors.Model:
    features = np.zeros((ratings.num_users, 0)) if users is None else users
    return factors.fit(
        ratings, features, np.zeros((ratings.num_items, 0)), factors.Settings(**QUICK, ordered=ordered), 0
    )


def test_hidden_classes_of_low_rank_are_found() -> None:
    truth, ratings, (user, item) = planted()
    classes = Ratings(ratings.user_idx, ratings.item_idx, np.digitize(ratings.value, [0.0, 2.0]).astype(float), 120, 60)
    expected, above = factors.predict(fitted(classes, ordered=True), user, item)
    hit = (above[:, 1] > 0.5) == (truth[user, item] > 2.0)
    assert hit.mean() > 0.93
    assert above.shape == (len(user), 2)
    np.testing.assert_allclose(expected, above.sum(axis=1), rtol=1e-5)  # values 0, 1, 2 with steps of 1
    # Calibrated: the mean probability is the share of values above 2, within three standard errors of 0.5 / sqrt(n).
    assert abs(above[:, 1].mean() - (truth[user, item] > 2.0).mean()) < 0.02


def test_hidden_numbers_of_low_rank_are_found() -> None:
    truth, ratings, (user, item) = planted()
    rounded = np.rint(2 * ratings.value)  # steps of one are as rough as 0.3 of noise
    expected, _ = factors.predict(fitted(Ratings(ratings.user_idx, ratings.item_idx, rounded, 120, 60)), user, item)
    error = np.sqrt(np.mean((expected - 2 * truth[user, item]) ** 2))
    assert error < 0.6 < np.std(2 * truth)  # the planted values vary by 2.8


def test_a_user_without_ratings_is_predicted_by_features() -> None:
    rng = np.random.default_rng(1)
    kind = np.where(np.arange(100) % 2, 1.0, -1.0)  # odd users like the first 20 items, even ones the others
    taste = np.where(np.arange(40) < 20, 1.0, -1.0)
    user, item = np.nonzero(rng.random((98, 40)) < 0.4)  # users 98 (even) and 99 (odd) rated nothing
    value = (kind[user] * taste[item] > 0).astype(float)
    model = fitted(Ratings(user, item, value, 100, 40), kind[:, None], ordered=True)
    items = np.arange(40)
    even, odd = (factors.predict(model, np.full(40, u), items)[0] for u in (98, 99))
    assert (odd[taste > 0] > 0.8).all()
    assert (odd[taste < 0] < 0.2).all()
    assert (even[taste > 0] < 0.2).all()


@pytest.mark.parametrize("ordered", [False, True])
def test_a_seed_fixes_the_model_and_rows_do_not_see_each_other(ordered: bool) -> None:
    _, ratings, (user, item) = planted()
    rough = Ratings(ratings.user_idx, ratings.item_idx, np.rint(ratings.value), 120, 60)
    first, second = (factors.predict(fitted(rough, ordered=ordered), user[:50], item[:50])[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    one = factors.predict(fitted(rough, ordered=ordered), user[7:8], item[7:8])[0]
    np.testing.assert_allclose(one, first[7:8], rtol=1e-6)
