"""Each row runs its own tower only: the same values and gradients as running all of them and choosing."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recspark.models.layers import RowNoise
from recspark.models.towers import GroupedMlp, Groups, Router

TOWERS = torch.tensor([3, 0, 3, 5, 0, 3])  # of 7: some have no row


def all_towers(mlp: GroupedMlp, x_BX: Tensor, tower_B: Tensor) -> Tensor:
    """The reference: every tower for every row."""
    x_GBX = x_BX.expand(len(mlp.scales_GH[0]), -1, -1)
    for linear, scale_GH, shift_GH in zip(mlp.linears, mlp.scales_GH, mlp.shifts_GH, strict=True):
        x_GBX = torch.einsum("gbx,gxh->gbh", x_GBX, linear.weight_GXH) + linear.bias_GH[:, None]
        x_GBX = F.layer_norm(x_GBX, x_GBX.shape[2:]) * scale_GH[:, None] + shift_GH[:, None]
        x_GBX = torch.relu(x_GBX)
    return x_GBX[tower_B, torch.arange(len(tower_B))]


def mlp(num_towers: int) -> GroupedMlp:
    torch.manual_seed(0)
    made = GroupedMlp(num_towers, 6, (8, 4), drop=0.5)
    for parameter in [*made.scales_GH, *made.shifts_GH]:
        torch.nn.init.normal_(parameter)
    return made


def own_tower(made: GroupedMlp, x_BX: Tensor, tower_B: Tensor) -> Tensor:
    groups = Groups.of(tower_B, len(made.scales_GH[0]))
    return made(x_BX[groups.order_B], groups)[groups.place_B]


def test_groups_by_hand() -> None:
    groups = Groups.of(TOWERS, 7)
    assert groups.order_B.tolist() == [1, 4, 0, 2, 5, 3]
    assert groups.tower_B.tolist() == [0, 0, 3, 3, 3, 5]
    assert (groups.towers, groups.sizes) == ((0, 3, 5), [2, 3, 1])
    assert TOWERS[groups.order_B][groups.place_B].tolist() == TOWERS.tolist()


@pytest.mark.parametrize("tower_B", [TOWERS, torch.randint(7, (500,), generator=torch.Generator().manual_seed(1))])
def test_values_and_gradients_are_those_of_all_towers(tower_B: Tensor) -> None:
    made = mlp(7)
    x_BX = torch.randn(len(tower_B), 6, generator=torch.Generator().manual_seed(2)).requires_grad_()
    pull = torch.randn(len(tower_B), 4, generator=torch.Generator().manual_seed(3)) / len(tower_B)
    found, gradients = [], []
    for way in (own_tower, all_towers):
        found.append(way(made, x_BX, tower_B))
        gradients.append(torch.autograd.grad((found[-1] * pull).sum(), [x_BX, *made.parameters()]))
    assert (found[0] - found[1]).abs().max() < 1e-6 and found[0].std() > 0.1
    for mine, reference in zip(*gradients, strict=True):
        assert (mine - reference).abs().max() < 1e-6
    assert max(float(gradient.abs().max()) for gradient in gradients[0]) > 1e-3


def test_no_rows_give_no_outputs() -> None:
    assert own_tower(mlp(7), torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64)).shape == (0, 4)


def test_noise_belongs_to_the_row_in_any_order() -> None:
    def noise() -> RowNoise:
        return RowNoise(torch.Generator().manual_seed(5), 0, 1)

    groups = Groups.of(TOWERS, 7)
    in_order = groups.noise(noise())
    assert in_order is not None and groups.noise(None) is None
    assert torch.equal(in_order.keep(6, 3, 0.5)[groups.place_B], noise().keep(6, 3, 0.5))


def test_scenarios_without_rows_go_to_the_common_tower() -> None:
    router = Router(4)
    router.fit(TOWERS[TOWERS < 4].numpy())  # scenarios 0 and 3
    assert router(torch.tensor([0, 1, 2, 3, 4, 99])).tower_B.tolist() == [0, 0, 0, 0, 1, 4]
    assert router(torch.tensor([0, 1, 2, 3, 4, 99])).place_B.tolist() == [4, 0, 1, 5, 2, 3]
