"""Layers in 8-bit integers, by hand and against the float ones."""

import numpy as np
import pytest
import torch
from torch import nn

from recspark.models import int8
from recspark.models.layers import Cross, Mlp
from recspark.models.towers import GroupedMlp, Groups


def test_by_hand() -> None:
    """Weights (1, -.5) are 127 and -64 (-63.5, to even) steps of 1 / 127. A row (2, 1) is 127 and 64 (63.5, to even)
    steps of 2 / 127: (127 * 127 - 64 * 64) * 2 / 127^2 + 10. Another row has another step: its result is its own."""
    layer = int8.Int8Linear(2, 1, True, None)
    layer.fit(torch.tensor([[1.0], [-0.5]]), torch.tensor([10.0]), torch.tensor([1.0, 0.5]))  # nothing to smooth
    found = layer(torch.tensor([[2.0, 1.0], [200.0, 0.0]]))
    np.testing.assert_allclose(found[:, 0], [(127**2 - 64**2) * 2 / 127**2 + 10, 210.0], rtol=1e-6)


def test_inputs_of_different_size_all_count() -> None:
    """An input of 1000 and one of .01 count the same: with one step for both, 1000 / 127, the small one would be 0."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.uniform(-1, 1, (500, 2)) * [1000, 0.01]).float()
    weight = torch.tensor([[0.001], [100.0]])
    smooth, plain = (int8.Int8Linear(2, 1, False, None) for _ in range(2))
    smooth.fit(weight, None, torch.tensor([1000.0, 0.01]))
    plain.fit(weight, None, torch.zeros(2))
    exact = x @ weight
    assert (smooth(x) - exact).abs().max() < 0.03
    assert (plain(x) - exact).abs().max() > 0.9


@pytest.mark.parametrize("kind", ["mlp", "towers", "cross"])
def test_near_the_float_layers_and_the_same_to_the_last_bit_in_any_batch(kind: str) -> None:
    torch.manual_seed(0)
    part = {"mlp": Mlp(24, (16, 8), 0.0), "towers": GroupedMlp(3, 24, (16, 8), 0.0), "cross": Cross(24, 2)}[kind]
    whole = nn.ModuleDict({"part": part}).eval()
    x, tower = torch.randn(64, 24), torch.arange(64) % 3

    def run(rows: torch.Tensor) -> torch.Tensor:
        if kind != "towers":
            return whole["part"](x[rows])
        groups = Groups.of(tower[rows], 3)
        return whole["part"](x[rows][groups.order_B], groups)[groups.place_B]

    with torch.inference_mode():
        exact = run(torch.arange(64))
        int8.convert(whole, lambda: run(torch.arange(64)))
        assert all(isinstance(layer, int8.Int8Linear) for layer in whole["part"].linears)
        found = run(torch.arange(64))
        assert 0 < (found - exact).abs().max() < 0.15
        integers = [layer(x[:, : layer.weight_XH.shape[-2]]) for layer in whole["part"].linears if kind != "towers"]
        for layer, first in zip(whole["part"].linears, integers, strict=False):
            assert torch.equal(layer(x[5:6, : layer.weight_XH.shape[-2]]), first[5:6])
        assert torch.allclose(torch.cat([run(torch.tensor([n])) for n in range(64)]), found, atol=1e-6)
