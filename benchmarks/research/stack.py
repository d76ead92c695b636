"""The probability of a label from the scores of other models and a few features: stacked generalization.

Boosted trees (LightGBM) start from the logit of the other models. They learn on rows that those models did not learn
from, and are cross-fitted: for each fold one model learns from the other folds and uses this one for early stopping; a
new row gets the mean of their logits.

Shapes: n rows, F features.
Reference: Wolpert 1992, Stacked Generalization.
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
    """One booster for each fold, and the probabilities (n,) that each gives to the rows of its own fold."""

    folds: tuple[lightgbm.Booster, ...]
    held_out: np.ndarray


def base(probabilities: np.ndarray) -> np.ndarray:
    """The mean logit (n,) over models of their probabilities (n, models), which are clipped away from 0 and 1."""
    return logit(np.clip(probabilities, 1e-4, 1 - 1e-4).astype(np.float64)).mean(axis=1)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    start: np.ndarray,
    fold: np.ndarray,
    settings: Settings,
    seed: int,
    categorical: Sequence[int] = (),
) -> Model:
    """Learn labels 0 / 1 (n,) from `features` (n, F), NaN = unknown, starting from the logit `start` (n,).

    `fold` (n,): rows with the same number are held out together. `categorical`: columns of `features` with codes.
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
    """Probabilities float64 (n,)."""
    return expit(start + np.mean([_raw(booster, features) for booster in model.folds], axis=0))


def _raw(booster: lightgbm.Booster, features: np.ndarray) -> np.ndarray:
    return booster.predict(features, num_iteration=booster.best_iteration, raw_score=True)
