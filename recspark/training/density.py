"""How much likelier a row is in one scenario than in the others: a density ratio out of a logistic regression."""

from dataclasses import dataclass

import numpy as np

RIDGE = 1.0  # so that two scenarios that never overlap have finite coefficients
ROUNDS = 25
LARGEST = 10.0  # a few rows must not be the whole source


@dataclass(frozen=True)
class Likeness:
    """Features (n, F) -> p(x | target) / p(x | sources), float64 (n,), at most LARGEST; mean about 1 over the sources.

    `coefficients` (2 F + 1,): of the features, their squares (two bell curves differ by both) and a constant, which
    includes the scenarios' shares of the rows.
    """

    coefficients: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return np.minimum(np.exp(np.minimum(_design(features) @ self.coefficients, 50.0)), LARGEST)


def likeness(features: np.ndarray, is_target: np.ndarray) -> Likeness:
    """From (n, F) features of both sides, in -1..1, and which rows are the target's, bool (n,).

    Ridge logistic regression by Newton steps; where one side has no row, every row is as likely in both.
    """
    design, num_target = _design(features), int(is_target.sum())
    coefficients = np.zeros(design.shape[1])
    num_sources = len(is_target) - num_target
    if not num_target or not num_sources:
        return Likeness(coefficients)
    penalty = np.full(len(coefficients), RIDGE)
    penalty[-1] = 1e-9  # not the constant
    for _ in range(ROUNDS):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ coefficients, -30, 30)))
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, design.T @ (is_target - p) - penalty * coefficients)
        coefficients = coefficients + step * min(1.0, 5.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    coefficients[-1] -= np.log(num_target / num_sources)  # odds of the classifier -> ratio of the densities
    return Likeness(coefficients)


def _design(features: np.ndarray) -> np.ndarray:
    return np.column_stack([features, features**2, np.ones(len(features))])
