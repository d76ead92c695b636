"""The chance of a label from other models' scores and a few features, learnt on rows that those models do not know:
boosted trees (LightGBM) on top of a logit that is known already (Wolpert 1992, Stacked Generalization).

Cross-fitted: one model a fold stops early on it and learns from the others; a new row gets the mean of their logits.
Shapes: n rows, F features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from recspark.models.rankers.gbdt import lightgbm

PATIENCE = 50  # rounds
PARAMS = {
    "objective": "binary",
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Settings:
    max_rounds: int = 500
    learning_rate: float = 0.03
    num_leaves: int = 15


@dataclass(frozen=True)
class Model:
    """One booster a fold, and the chances (n,) that each gave to the rows of its fold."""

    folds: tuple[lightgbm.Booster, ...]
    held_out: np.ndarray


def base(chances: np.ndarray) -> np.ndarray:
    """Logit (n,) of the mean over models of their chances (n, models), kept off 0 and 1."""
    return logit(np.clip(chances, 1e-4, 1 - 1e-4).astype(np.float64)).mean(axis=1)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    start: np.ndarray,
    fold: np.ndarray,
    settings: Settings,
    seed: int,
    categorical: Sequence[int] = (),
) -> Model:
    """Learn labels 0 / 1 (n,) from `features` (n, F), nan = unknown, beside the logit `start` (n,).

    `fold` (n,): rows of the same number are held out together. `categorical`: columns of features that hold codes.
    """
    boosters, held_out = [], np.empty(len(labels))
    params = {**PARAMS, "learning_rate": settings.learning_rate, "num_leaves": settings.num_leaves}
    for f in np.unique(fold):
        parts = [
            lightgbm.Dataset(
                features[rows], labels[rows], init_score=start[rows], categorical_feature=list(categorical)
            )
            for rows in (fold != f, fold == f)
        ]
        stop = lightgbm.early_stopping(PATIENCE, verbose=False)
        booster = lightgbm.train(
            {**params, "seed": seed}, parts[0], settings.max_rounds, valid_sets=parts[1:], callbacks=[stop]
        )
        boosters.append(booster)
        held_out[fold == f] = expit(start[fold == f] + _raw(booster, features[fold == f]))
    return Model(tuple(boosters), held_out)


def predict(model: Model, features: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Chances float64 (n,)."""
    return expit(start + np.mean([_raw(booster, features) for booster in model.folds], axis=0))


def _raw(booster: lightgbm.Booster, features: np.ndarray) -> np.ndarray:
    return booster.predict(features, num_iteration=booster.best_iteration, raw_score=True)
