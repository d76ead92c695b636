"""How much likelier a row is in one scenario than in the others: a density ratio out of a logistic regression."""

from dataclasses import dataclass

import numpy as np

from recspark.arrays import Array

RIDGE = 1.0  # so that two scenarios that never overlap have finite coefficients
LARGEST = 10.0  # a few rows must not be the whole source


@dataclass(frozen=True)
class Likeness:
    """Features (n, F) -> p(x | target) / p(x | sources), float64 (n,), at most LARGEST; mean about 1 over the sources.

    `coefficients` (2 F,): of the features and their squares (two bell curves differ by both); `constant` includes the
    scenarios' shares of the rows.
    """

    coefficients: Array
    constant: float

    def __call__(self, features: Array) -> Array:
        logit = _design(features) @ self.coefficients + self.constant
        return np.minimum(np.exp(np.minimum(logit, 50.0)), LARGEST)


def likeness(features: Array, is_target: Array) -> Likeness:
    """From (n, F) features of both sides, of unit scale, and which rows are the target's, bool (n,).

    Where one side has no row, every row is as likely in both.
    """
    from sklearn.linear_model import LogisticRegression  # here: only `reweight` waits for its import

    design, num_target = _design(features), int(is_target.sum())
    num_sources = len(is_target) - num_target
    if not num_target or not num_sources:
        return Likeness(np.zeros(design.shape[1]), 0.0)
    fitted = LogisticRegression(C=1.0 / RIDGE, solver="newton-cholesky").fit(design, is_target)
    odds = float(np.log(num_target / num_sources))  # odds of the classifier -> ratio of the densities
    return Likeness(fitted.coef_[0], float(fitted.intercept_[0]) - odds)


def _design(features: Array) -> Array:
    return np.column_stack([features, features**2])
