import numpy as np
from scipy.special import expit

from benchmarks.research import stack
from recspark import metrics


def test_base_is_the_mean_logit() -> None:
    """logit 0.9 = log 9, logit 0.5 = 0."""
    np.testing.assert_allclose(stack.base(np.array([[0.9, 0.5]])), [np.log(9.0) / 2])


def test_the_trees_learn_what_the_start_does_not_contain() -> None:
    rng = np.random.default_rng(0)
    start, x = rng.normal(size=8000), rng.normal(size=(8000, 2))
    truth = start + 2 * np.sign(x[:, 0])
    labels, fold = (rng.random(8000) < expit(truth)).astype(int), rng.integers(0, 3, 8000)
    train, test = np.arange(8000) < 6000, np.arange(8000) >= 6000
    model = stack.fit(x[train], labels[train], start[train], fold[train], stack.Settings(), 0)
    found = stack.predict(model, x[test], start[test])
    best = metrics.auc(labels[test], truth[test])
    assert metrics.auc(labels[test], start[test]) < best - 0.1
    assert metrics.auc(labels[test], found) > best - 0.01
    held_out = metrics.auc(labels[train], model.held_out)
    assert (
        held_out < metrics.auc(labels[train], truth[train]) + 0.005
    )  # no row was scored by a model that learnt from it
    np.testing.assert_allclose(found[:1], stack.predict(model, x[test][:1], start[test][:1]), rtol=1e-12)
