import numpy as np
import torch

from benchmarks.research.ratings import deep_fm
from recspark import metrics


def test_logit_by_hand() -> None:
    """Two fields of two codes: bias 1 + linear (0.5 - 0.25) + dot of (1, 2) and (3, 4) = 11, network 0."""
    model = deep_fm.DeepFM((2, 2), deep_fm.Settings(dim=2, hidden=()))
    with torch.no_grad():
        model.bias.fill_(1.0)
        model.linear.weight.copy_(torch.tensor([[0.5], [9.0], [9.0], [-0.25]]))
        model.embedding.weight.copy_(torch.tensor([[1.0, 2.0], [9.0, 9.0], [9.0, 9.0], [3.0, 4.0]]))
        for parameter in model.network.parameters():
            parameter.zero_()
    np.testing.assert_allclose(model(torch.tensor([[0, 1]])).item(), 1.0 + 0.25 + 11.0)


def test_a_planted_interaction_is_learnt() -> None:
    """The label is 1 where the codes are equal: one field alone predicts nothing."""
    codes = np.random.default_rng(0).integers(0, 3, (6000, 2))
    labels = (codes[:, 0] == codes[:, 1]).astype(np.int64)
    settings = deep_fm.Settings(dim=4, hidden=(8,), dropout=0.0, learning_rate=0.02, batch_rows=256)
    valid = (codes[5000:], labels[5000:])
    model = deep_fm.fit(codes[:5000], labels[:5000], valid, (3, 3), settings, 0)
    assert metrics.auc(labels[5000:], deep_fm.predict(model, codes[5000:])) > 0.99
    alone = deep_fm.predict(model, codes[5000:5001])
    np.testing.assert_allclose(alone, deep_fm.predict(model, codes[5000:])[:1], rtol=1e-5)
