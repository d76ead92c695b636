"""Gradient boosted trees (LightGBM) that rank lists, by XE-NDCG or LambdaRank.

Trees learn the order within a list. A list without a positive has no order to learn, so it is left out, and the
sampling weights of users without positives play no part. Of the other rows a model sees a sample in each list.
Shapes: n rows, F features.
Reference: Bruch 2021, An Alternative Cross Entropy Loss for Learning-to-Rank; Burges 2010, From RankNet to LambdaRank
to LambdaMART.
"""

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from typing import Any

import numpy as np

from recspark.arrays import Array
from recspark.config.rankers import Gbdt
from recspark.errors import DataError, TrainingError
from recspark.models.rankers.blend import spread


class _NoSklearn(MetaPathFinder):
    """Makes scikit-learn look not installed to the imports of one thread; other threads import it as usual."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if fullname == "sklearn" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("left out: LightGBM's own classes do not need it", name=fullname)


@contextmanager
def _without_sklearn() -> Iterator[None]:
    finder = _NoSklearn()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


# LightGBM imports scikit-learn for wrapper classes that are not used here: 1.1 to 1.7 s of every Python worker. If it
# is loaded already, LightGBM uses it; if not, the wrappers (LGBMClassifier ...) do not work in this process.
with _without_sklearn():
    import lightgbm

NEGATIVES = 30  # of a list that a model learns from, drawn anew for each model: a third of the time, as good lists
STOP_AT = 50  # early stopping is on NDCG@50: @10 depends on few users and varies more
PATIENCE = 50  # rounds
SPREAD_ROWS = 50_000  # rows that a model's spread is measured on: whole lists, except the last
PARAMS = {
    "metric": "ndcg",
    "eval_at": [STOP_AT],
    "min_data_in_leaf": 50,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


MEMBERS = 3  # of an ensemble: one alone varies, mostly by where it stopped


@dataclass(frozen=True)
class Model:
    """The trees, the features that they expect (in order), and figures of the training."""

    booster: lightgbm.Booster
    features: tuple[str, ...]
    num_rounds: int
    num_rows: int  # of the training
    spread: float  # of its scores within a list; see blend.py


@dataclass(frozen=True)
class Ensemble:
    """Models whose mean score counts. `spread`: of that mean within a list; see blend.py."""

    members: tuple[Model, ...]
    spread: float

    @property
    def features(self) -> tuple[str, ...]:
        return self.members[0].features


def fit(
    features: Array,
    labels: Array,
    keys: Array,
    holdout: Array,
    names: Sequence[str],
    settings: Gbdt,
    seed: int,
    num_rounds: int | None = None,
    num_threads: int = 0,
    weights: Array | None = None,
    categories: Sequence[str] = (),
) -> Model:
    """Train on lists; the same rows in any order give the same model.

    `features` (n, F) float32, NaN = unknown; `labels` (n,): positive where above 0; `keys` (n, 4) int: as_of, scenario,
    user, item, of which the first three identify the list; `holdout` (n,) bool: rows of the users for early stopping.
    With `num_rounds` there is no early stopping, and the held-out rows are trained on too. `weights` (n,): of rows, the
    same within a list. `num_threads` 0 = all cores. `categories`: the features that are codes, whole numbers from 0.
    Raises: DataError when no list has a positive.
    """
    order = np.lexsort(keys.T[::-1])
    sorted_keys = keys[order]
    list_idx = np.cumsum((np.diff(sorted_keys[:, :3], axis=0, prepend=sorted_keys[:1, :3] - 1) != 0).any(axis=1)) - 1
    positive = labels[order] > 0
    if not positive.any():
        raise DataError(f"gbdt: found no positive in {len(labels)} examples, expected some; widen the label windows")
    useful = np.bincount(list_idx, positive)[list_idx] > 0
    valid = holdout[order] & useful if num_rounds is None else np.zeros(len(order), dtype=bool)
    trained = useful & ~valid
    if not trained.any():  # all users with a positive are held out
        valid, trained = np.zeros_like(valid), useful
    spread_rows = order[trained][:SPREAD_ROWS]
    trained &= positive | _drawn(list_idx, useful & ~positive, seed)
    trained &= _sampled(list_idx, trained, settings.max_rows, seed)
    codes = [list(names).index(name) for name in categories]
    train = _dataset(features, positive, order, list_idx, trained, weights, codes)
    booster = _boost(
        train,
        _dataset(features, positive, order, list_idx, valid, None, codes, train) if valid.any() else None,
        {
            **PARAMS,
            "objective": settings.objective,
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.num_leaves,
            "seed": seed,
        },
        num_rounds or settings.max_rounds,
        num_threads,
    )
    rounds = booster.best_iteration if booster.best_iteration > 0 else booster.current_iteration()
    scores = booster.predict(features[spread_rows], num_iteration=rounds, num_threads=num_threads)
    return Model(booster, tuple(names), rounds, int(trained.sum()), spread(keys[spread_rows][:, :3], scores))


def fit_ensemble(
    features: Array,
    labels: Array,
    keys: Array,
    folds: Array,
    names: Sequence[str],
    settings: Gbdt,
    seed: int,
    num_rounds: int | None = None,
    num_threads: int = 0,
    weights: Array | None = None,
    categories: Sequence[str] = (),
) -> Ensemble:
    """`fit` MEMBERS models, of other seeds; `folds` (n,) int: of the rows' users. Member m stops early on fold m."""
    members = tuple(
        fit(features, labels, keys, folds == m, names, settings, seed + m, num_rounds, num_threads, weights, categories)
        for m in range(MEMBERS)
    )
    some = np.lexsort(keys.T[::-1])[:SPREAD_ROWS]
    return Ensemble(members, spread(keys[some][:, :3], _mean(members, features[some], num_threads)))


def _drawn(list_idx: Array, negative: Array, seed: int) -> Array:
    """bool (n,): a seeded sample of about NEGATIVES of each list's `negative` rows, or all of them if it has fewer."""
    drawn = np.zeros(len(list_idx), dtype=bool)
    of_list = list_idx[negative]
    rate = NEGATIVES / np.bincount(of_list)[of_list]
    drawn[negative] = np.random.default_rng(seed).random(len(of_list)) < rate
    return drawn


def _sampled(list_idx: Array, trained: Array, max_rows: int, seed: int) -> Array:
    """bool (n,): a seeded sample of whole lists, of at most `max_rows` of the `trained` rows, and at least one list."""
    sizes = np.bincount(list_idx[trained], minlength=int(list_idx[-1]) + 1)
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    within = np.cumsum(sizes[drawn]) <= max_rows
    kept = np.zeros(len(sizes), dtype=bool)
    kept[drawn[within]] = True
    if not sizes[kept].any():
        kept[drawn[np.flatnonzero(sizes[drawn])[0]]] = True
    return kept[list_idx]


def _dataset(
    features: Array,
    positive: Array,
    order: Array,
    list_idx: Array,
    chosen: Array,
    weights: Array | None,
    codes: list[int],
    reference: lightgbm.Dataset | None = None,
) -> lightgbm.Dataset:
    """The chosen rows, list by list; `positive`, `list_idx` and `chosen` are already in the order of `order`."""
    sizes = np.bincount(list_idx[chosen])
    rows = order[chosen]
    return lightgbm.Dataset(
        features[rows],
        positive[chosen].astype(np.int8),
        weight=None if weights is None else weights[rows],
        group=sizes[sizes > 0],
        reference=reference,
        categorical_feature=codes,
    )


def _boost(
    train: lightgbm.Dataset,
    valid: lightgbm.Dataset | None,
    params: Mapping[str, Any],
    num_rounds: int,
    num_threads: int,
) -> lightgbm.Booster:
    """Train; with `valid` until its NDCG has not risen for `PATIENCE` rounds.

    Raises: TrainingError when LightGBM fails.
    """
    callbacks = [lightgbm.early_stopping(PATIENCE, verbose=False)] if valid is not None else []
    valid_sets = [valid] if valid is not None else []
    settings = {**params, "num_threads": num_threads}
    try:
        return lightgbm.train(settings, train, num_rounds, valid_sets=valid_sets, callbacks=callbacks)
    except lightgbm.basic.LightGBMError as error:
        raise TrainingError(f"gbdt: LightGBM stopped with: {error}") from error


def importance(model: Ensemble) -> dict[str, float]:
    """Feature -> its share of the gain of all splits, 0 to 1."""
    gains = np.sum([one.booster.feature_importance("gain", one.num_rounds) for one in model.members], axis=0)
    return dict(zip(model.features, (gains / max(float(gains.sum()), 1e-12)).tolist(), strict=True))


def predict(model: Model | Ensemble, features: Array, num_threads: int = 0) -> Array:
    """Scores float64 (n,), comparable within a list only; a row's score depends on that row alone.

    Raises: DataError when the number of features is not the model's.
    """
    if features.shape[1] != len(model.features):
        raise DataError(
            f"gbdt: found {features.shape[1]} features, expected {len(model.features)} "
            f"({model.features[0]} ... {model.features[-1]}); build candidates and examples again with --force"
        )
    if not len(features):
        return np.zeros(0)
    return _mean(model.members if isinstance(model, Ensemble) else (model,), features, num_threads)


def _mean(members: Sequence[Model], features: Array, num_threads: int) -> Array:
    scores = [one.booster.predict(features, num_iteration=one.num_rounds, num_threads=num_threads) for one in members]
    return np.asarray(np.mean(scores, axis=0))


def to_texts(model: Ensemble) -> tuple[dict[str, Any], dict[str, str]]:
    """(manifest for JSON, file name -> content): each member's trees up to its best round, in LightGBM's format."""
    members = [{"num_rounds": one.num_rounds, "num_rows": one.num_rows, "spread": one.spread} for one in model.members]
    manifest = {"features": list(model.features), "members": members, "spread": model.spread}
    texts = [one.booster.model_to_string(num_iteration=one.num_rounds) for one in model.members]
    return manifest, {booster_file(m): text for m, text in enumerate(texts)}


def from_texts(manifest: Mapping[str, Any], boosters: Sequence[str]) -> Ensemble:
    """The inverse of `to_texts`, from the contents of the members' files in order: same scores to the last bit."""
    features = tuple(manifest["features"])
    members = [
        Model(lightgbm.Booster(model_str=text), features, one["num_rounds"], one["num_rows"], one["spread"])
        for text, one in zip(boosters, manifest["members"], strict=True)
    ]
    return Ensemble(tuple(members), manifest["spread"])


def booster_file(member: int) -> str:
    """The name of a member's file in the model's folder."""
    return f"booster_{member}.txt"
