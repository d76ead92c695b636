"""Packed layers have the outputs of torch's, and only plain ones are packed."""

import numpy as np
import pytest
import torch
from torch import nn

from recspark.encoders import packed

needs_onednn = pytest.mark.skipif(not packed.can_pack(), reason="this torch has no oneDNN")


class Other(nn.Linear):
    """For layers whose weights other code reads."""


@needs_onednn
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (1, 1), (3, 5), (64, 40)])
def test_packed_linear_is_linear(bias, shape):
    torch.manual_seed(0)
    linear = nn.Linear(48, 20, bias=bias)
    x = torch.randn(*shape, 48)
    with torch.inference_mode():
        np.testing.assert_allclose(packed.PackedLinear(linear)(x), linear(x), atol=1e-5)


@needs_onednn
def test_plain_linear_layers_are_packed_in_place():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Other(4, 4), nn.Linear(4, 2)), nn.LayerNorm(2))
    x = torch.ones(3, 4)
    with torch.inference_mode():
        before = model(x)
        assert packed.pack(model) is model
        np.testing.assert_allclose(model(x), before, atol=1e-6)
    assert [type(m).__name__ for m in (model[0], *model[1])] == ["PackedLinear", "Other", "PackedLinear"]


def test_without_onednn_the_model_stays(monkeypatch):
    monkeypatch.setattr(packed, "can_pack", lambda: False)
    model = nn.Sequential(nn.Linear(4, 4))
    assert type(packed.pack(model)[0]) is nn.Linear
