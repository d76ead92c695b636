"""The boosted ranker on planted lists whose right order is known."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recspark.config.rankers import Gbdt
from recspark.errors import DataError
from recspark.models.rankers import gbdt
from recspark.models.rankers.blend import spread

NAMES = ("signal", "noise")
SMALL = Gbdt(max_rounds=30, num_leaves=7)


def planted(
    num_lists: int = 120, size: int = 10, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lists of two as_of dates in which the positive is the row of the highest `signal`; a tenth is held out."""
    rng = np.random.default_rng(seed)
    features = rng.random((num_lists * size, 2)).astype(np.float32)
    best = features[:, 0].reshape(num_lists, size).argmax(axis=1)
    labels = np.zeros(num_lists * size, dtype=np.float32)
    labels[np.arange(num_lists) * size + best] = 1
    user = np.repeat(np.arange(num_lists), size)
    keys = np.column_stack((user % 2, np.zeros_like(user), user, np.tile(np.arange(size), num_lists)))
    return features, labels, keys, user % 10 == 0


@pytest.fixture(scope="module")
def model() -> gbdt.Model:
    return gbdt.fit(*planted(), NAMES, SMALL, seed=0, num_threads=1)


def test_finds_the_planted_order(model: gbdt.Model) -> None:
    features, labels, _, _ = planted(seed=1)  # lists that it has not seen
    scores = gbdt.predict(model, features).reshape(-1, 10)
    hit = labels.reshape(-1, 10)[np.arange(len(scores)), scores.argmax(axis=1)]
    assert hit.mean() > 0.6  # by chance 0.1; trees cannot tell close signals apart


def test_a_row_alone_has_the_same_score(model: gbdt.Model) -> None:
    features = planted(seed=1)[0][:20]
    single = np.concatenate([gbdt.predict(model, row[None]) for row in features])
    np.testing.assert_array_equal(single, gbdt.predict(model, features))


def test_order_of_the_rows_changes_nothing(model: gbdt.Model) -> None:
    features, labels, keys, holdout = planted()
    mixed = np.random.default_rng(3).permutation(len(labels))
    again = gbdt.fit(features[mixed], labels[mixed], keys[mixed], holdout[mixed], NAMES, SMALL, seed=0, num_threads=1)
    assert trees(again) == trees(model)


def trees(model: gbdt.Model) -> str:
    return model.booster.model_to_string(num_iteration=model.num_rounds)


def test_an_ensemble_is_the_mean_of_members_that_stop_on_other_users() -> None:
    features, labels, keys, _ = planted()
    folds = keys[:, 2] % 10
    found = gbdt.fit_ensemble(features, labels, keys, folds, NAMES, SMALL, seed=5, num_threads=1)
    alone = [gbdt.fit(features, labels, keys, folds == m, NAMES, SMALL, 5 + m, num_threads=1) for m in range(3)]
    assert [trees(member) for member in found.members] == [trees(one) for one in alone]
    scores = np.mean([gbdt.predict(one, features) for one in alone], axis=0)
    np.testing.assert_array_equal(gbdt.predict(found, features), scores)
    assert found.spread == pytest.approx(spread(keys[:, :3], scores))


def test_saved_is_fresh() -> None:
    features, labels, keys, holdout = planted()
    model = gbdt.fit_ensemble(features, labels, keys, np.where(holdout, 0, 9), NAMES, SMALL, seed=0, num_threads=1)
    manifest, texts = gbdt.to_texts(model)
    loaded = gbdt.from_texts(json.loads(json.dumps(manifest)), [texts[f"booster_{m}.txt"] for m in range(3)])
    features = planted(seed=1)[0]
    np.testing.assert_array_equal(gbdt.predict(loaded, features), gbdt.predict(model, features))
    assert loaded.features == NAMES
    assert texts["booster_0.txt"].startswith("tree")


def test_rows_of_almost_no_weight_are_not_learnt_from() -> None:
    """Two of three users want the lowest signal, the others the highest; the two have almost no weight."""
    features, labels, keys, holdout = planted()
    old = keys[:, 2] % 3 > 0
    lowest = features[:, 0].reshape(-1, 10).argmin(axis=1)
    turned = np.zeros_like(labels)
    turned[np.arange(120) * 10 + lowest] = 1
    labels = np.where(old, turned, labels)
    weights = np.where(old, 0.001, 1.0)
    model = gbdt.fit(features, labels, keys, holdout, NAMES, SMALL, seed=0, num_rounds=20, weights=weights)
    fresh, wanted, _, _ = planted(seed=1)
    scores = gbdt.predict(model, fresh).reshape(-1, 10)
    assert wanted.reshape(-1, 10)[np.arange(len(scores)), scores.argmax(axis=1)].mean() > 0.5


def test_lists_without_positives_change_nothing(model: gbdt.Model) -> None:
    features, labels, keys, holdout = planted()
    idle = keys + np.array([0, 0, 1000, 0])  # other users, who did nothing
    extra = gbdt.fit(
        np.concatenate((features, features)),
        np.concatenate((labels, np.zeros_like(labels))),
        np.concatenate((keys, idle)),
        np.concatenate((holdout, holdout)),
        NAMES,
        SMALL,
        seed=0,
        num_threads=1,
    )
    assert extra.num_rows == model.num_rows == 108 * 10  # 120 lists less the 12 held out
    assert trees(extra) == trees(model)


def test_max_rows_keeps_whole_lists() -> None:
    few = gbdt.fit(*planted(), NAMES, SMALL.model_copy(update={"max_rows": 205}), seed=0)
    assert few.num_rows == 200  # 20 lists of 10
    one = gbdt.fit(*planted(), NAMES, SMALL.model_copy(update={"max_rows": 3}), seed=0)
    assert one.num_rows == 10  # a list is never cut


def test_a_model_learns_from_a_sample_of_the_negatives_of_long_lists() -> None:
    """50 lists of 101 rows, of which one is positive: each gives that row and about 30 others (standard deviation of
    the sum 32). Other lists, without a positive, change no draw."""
    features, positions = np.random.default_rng(0).normal(size=(5050, 2)).astype(np.float32), np.arange(5050)
    labels = (positions % 101 == 0).astype(np.float32)
    keys = np.column_stack([np.zeros_like(positions), np.zeros_like(positions), positions // 101, positions % 101])
    nobody, few = np.zeros(5050, dtype=bool), SMALL.model_copy(update={"max_rounds": 2})
    model = gbdt.fit(features, labels, keys, nobody, ["a", "b"], few, seed=0)
    assert abs(model.num_rows - 50 * 31) < 130
    other = gbdt.fit(features, labels, keys, nobody, ["a", "b"], few, seed=1)
    assert other.num_rows != model.num_rows
    before = keys - np.array([0, 0, 100, 0])  # the same lists again, earlier and without a positive
    more = gbdt.fit(
        np.tile(features, (2, 1)), np.append(np.zeros(5050), labels), np.concatenate((before, keys)),
        np.tile(nobody, 2), ["a", "b"], few, seed=0,
    )  # fmt: skip
    assert more.booster.model_to_string() == model.booster.model_to_string()


def test_fixed_rounds_train_on_all_users() -> None:
    fixed = gbdt.fit(*planted(), NAMES, SMALL, seed=0, num_rounds=4)
    assert (fixed.num_rows, fixed.num_rounds, fixed.booster.num_trees()) == (1200, 4, 4)


def test_with_all_users_held_out_the_model_still_learns() -> None:
    features, labels, keys, holdout = planted()
    model = gbdt.fit(features, labels, keys, np.ones_like(holdout), NAMES, SMALL, seed=0)
    assert model.num_rows == 1200


def test_nothing_positive_is_an_error() -> None:
    features, labels, keys, holdout = planted()
    with pytest.raises(DataError, match="found no positive in 1200 examples"):
        gbdt.fit(features, labels * 0, keys, holdout, NAMES, SMALL, seed=0)


def test_other_features_are_an_error(model: gbdt.Model) -> None:
    with pytest.raises(DataError, match="found 3 features, expected 2"):
        gbdt.predict(model, np.zeros((1, 3), dtype=np.float32))


def test_lightgbm_does_not_import_scikit_learn() -> None:
    code = (
        "import sys; before = list(sys.meta_path)\n"
        "from recspark.models.rankers import gbdt\n"
        "assert 'sklearn' not in sys.modules and sys.meta_path == before"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_scikit_learn_is_hidden_from_one_thread_only() -> None:
    before = list(sys.meta_path)
    with gbdt._without_sklearn():
        finder = sys.meta_path[0]
        with pytest.raises(ModuleNotFoundError):
            finder.find_spec("sklearn", None)
        assert finder.find_spec("scipy", None) is None  # left to the next finder
        with ThreadPoolExecutor(1) as other:
            assert other.submit(finder.find_spec, "sklearn", None).result() is None
    assert sys.meta_path == before
