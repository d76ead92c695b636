import numpy as np
from scipy.special import expit

from benchmarks.research import stack
from recspark import metrics


def test_base_is_the_mean_logit() -> None:
    """logit 0.9 = log 9, logit 0.5 = 0."""
    np.testing.assert_allclose(stack.base(np.array([[0.9, 0.5]])), [np.log(9.0) / 2])


def test_what_the_base_does_not_know_is_learnt() -> None:
    rng = np.random.default_rng(0)
    start, x = rng.normal(size=8000), rng.normal(size=(8000, 2))
    truth = start + 2 * np.sign(x[:, 0])
    labels, fold = (rng.random(8000) < expit(truth)).astype(int), rng.integers(0, 3, 8000)
    learnt, asked = np.arange(8000) < 6000, np.arange(8000) >= 6000
    model = stack.fit(x[learnt], labels[learnt], start[learnt], fold[learnt], stack.Settings(), 0)
    found = stack.predict(model, x[asked], start[asked])
    best = metrics.auc(labels[asked], truth[asked])
    assert metrics.auc(labels[asked], start[asked]) < best - 0.1
    assert metrics.auc(labels[asked], found) > best - 0.01
    assert (
        metrics.auc(labels[learnt], model.held_out) < metrics.auc(labels[learnt], truth[learnt]) + 0.005
    )  # not taught
    np.testing.assert_allclose(found[:1], stack.predict(model, x[asked][:1], start[asked][:1]), rtol=1e-12)
