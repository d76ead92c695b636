"""How much likelier a row is in one scenario than in the others: a density ratio, from a logistic regression."""

from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array

RIDGE = 1.0  # so that two scenarios that never overlap have finite coefficients
LARGEST = 10.0  # a few rows must not outweigh all others


@dataclass(frozen=True)
class DensityRatio:
    """Features (n, F) -> p(x | target) / p(x | sources), float64 (n,), at most LARGEST; mean about 1 over the sources.

    `coefficients` (2 F,): of the features and their squares (two bell curves differ by both); `constant` includes the
    scenarios' shares of the rows.
    """

    coefficients: Array
    constant: float

    def __call__(self, features: Array) -> Array:
        logit = _design(features) @ self.coefficients + self.constant
        return np.asarray(np.minimum(np.exp(np.minimum(logit, 50.0)), LARGEST))


def density_ratio(features: Array, is_target: Array) -> DensityRatio:
    """From (n, F) features of both sides, of unit scale, and which rows are the target's, bool (n,).

    If one side has no row, the ratio is 1 everywhere.
    """
    from sklearn.linear_model import LogisticRegression  # here: only `reweight` needs it

    design, num_target = _design(features), int(is_target.sum())
    num_sources = len(is_target) - num_target
    if not num_target or not num_sources:
        return DensityRatio(np.zeros(design.shape[1]), 0.0)
    fitted = LogisticRegression(C=1.0 / RIDGE, solver="newton-cholesky").fit(design, is_target)
    odds = float(np.log(num_target / num_sources))  # odds of the classifier -> ratio of the densities
    return DensityRatio(fitted.coef_[0], float(fitted.intercept_[0]) - odds)


def _design(features: Array) -> Array:
    return np.column_stack([features, features**2])
