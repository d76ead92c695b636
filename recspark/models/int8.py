"""Linear layers in 8-bit integers: a quarter of the bytes, and fewer cycles where the CPU multiplies bytes (VNNI, AMX).

Weights have a step an output unit, activations one a row: so a row's result does not depend on its batch, and since
integers add up exactly, not even its last bit does. Before, each input is divided by a factor that the weights take
over (Xiao et al. 2023, SmoothQuant), so that inputs of unlike size are all seen.

Shape suffixes: B rows (of any number of dimensions), X inputs, H outputs, G towers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recspark.models.towers import Groups

LEVELS = 127
TINY = 1e-30


class Int8Linear(nn.Module):
    """An nn.Linear, or where `towers` is a number a GroupedLinear: same inputs and outputs, for scoring only."""

    def __init__(self, num_inputs: int, num_outputs: int, bias: bool, towers: int | None) -> None:
        super().__init__()
        lead = () if towers is None else (towers,)
        self.register_buffer("weight_XH", torch.zeros(*lead, num_inputs, num_outputs, dtype=torch.int8))
        self.register_buffer("steps_H", torch.zeros(*lead, num_outputs))
        self.register_buffer("shrink_X", torch.ones(num_inputs))
        self.register_buffer("bias_H", torch.zeros(*lead, num_outputs) if bias else None)

    @torch.no_grad()
    def fit(self, weight_XH: Tensor, bias_H: Tensor | None, largest_X: Tensor) -> None:
        """From float weights (G, X, H) or (X, H), and the largest absolute inputs that are to be expected."""
        heaviest_X = weight_XH.abs().amax(dim=-1).reshape(-1, len(largest_X)).amax(dim=0)
        usable_X = (largest_X > 0) & (heaviest_X > 0)
        grow_X = torch.where(usable_X, (largest_X.clamp_min(TINY) / heaviest_X.clamp_min(TINY)).sqrt(), 1.0)
        smooth_XH = weight_XH * grow_X.unsqueeze(-1)
        steps_H = smooth_XH.abs().amax(dim=-2).clamp_min(TINY) / LEVELS
        self.weight_XH.copy_(torch.round(smooth_XH / steps_H.unsqueeze(-2)))
        self.steps_H.copy_(steps_H)
        self.shrink_X.copy_(1.0 / grow_X)
        if bias_H is not None:
            self.bias_H.copy_(bias_H)

    def forward(self, x_BX: Tensor, groups: Groups | None = None) -> Tensor:
        """x may have more leading dimensions where there are no groups."""
        scaled_BX = x_BX.reshape(-1, x_BX.shape[-1]) * self.shrink_X
        step_B1 = scaled_BX.abs().amax(dim=1, keepdim=True).clamp_min_(TINY).div_(LEVELS)
        codes_BX = scaled_BX.div_(step_B1).round_().to(torch.int8)
        if groups is None:
            found_BH = _product(codes_BX, step_B1, self.weight_XH, self.steps_H, self.bias_H)
            return found_BH.view(*x_BX.shape[:-1], -1)
        parts = zip(groups.towers, codes_BX.split(groups.sizes), step_B1.split(groups.sizes), strict=True)
        found = [_product(codes, step, *(w[tower] for w in (self.weight_XH, self.steps_H, self.bias_H)))
                 for tower, codes, step in parts]  # fmt: skip
        return torch.cat(found) if found else x_BX.new_zeros(0, self.steps_H.shape[-1])


def _product(codes_BX: Tensor, step_B1: Tensor, weight_XH: Tensor, steps_H: Tensor, bias_H: Tensor | None) -> Tensor:
    """In place from the integers on: what a layer saves on the product it would lose on copies."""
    found_BH = torch._int_mm(codes_BX, weight_XH).to(torch.float32).mul_(step_B1).mul_(steps_H)
    return found_BH if bias_H is None else found_BH.add_(bias_H)


def layers_of(network: nn.Module) -> dict[str, nn.Module]:
    """Name -> the layers that run in 8 bits: all but those that make logits, and those whose weights are wanted as such
    (attention). A layer before another 8-bit one must not stay: its float32 result depends on the batch in the last
    bit, and the rounding that follows would make a step of that."""
    found: dict[str, nn.Module] = {}
    left = {f"{name}.{child}" for name, part in network.named_modules() for child in getattr(part, "weights_read", ())}
    for name, layer in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)  # STAR's are made of other layers
        fits = isinstance(layer, nn.Linear) or hasattr(layer, "weight_GXH")
        if fits and not inside and "head" not in name and name not in left:
            found[name] = layer
    return found


def converted(network: nn.Module) -> bool:
    return any(isinstance(layer, Int8Linear) for layer in network.modules())


def swap(network: nn.Module) -> dict[str, Int8Linear]:
    """Put empty 8-bit layers in their place; name -> layer."""
    made = {name: _empty(layer) for name, layer in layers_of(network).items()}
    for name, layer in made.items():
        network.set_submodule(name, layer)
    return made


@torch.no_grad()
def convert(network: nn.Module, run: Callable[[], object]) -> None:
    """A network in evaluation mode, in place; `run` passes typical rows through it."""
    layers, largest = layers_of(network), {}

    def seen(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found_X = inputs[0].abs().reshape(-1, inputs[0].shape[-1]).amax(dim=0)
            largest[name] = torch.maximum(largest[name], found_X) if name in largest else found_X

        return keep

    handles = [layer.register_forward_pre_hook(seen(name)) for name, layer in layers.items()]
    run()
    for handle in handles:
        handle.remove()
    for name, small in swap(network).items():
        layer = layers[name]
        weight_XH = layer.weight.T if isinstance(layer, nn.Linear) else layer.weight_GXH
        bias_H = layer.bias if isinstance(layer, nn.Linear) else layer.bias_GH
        small.fit(weight_XH, bias_H, largest.get(name, torch.zeros(weight_XH.shape[-2])))


def _empty(layer: nn.Module) -> Int8Linear:
    if isinstance(layer, nn.Linear):
        return Int8Linear(layer.in_features, layer.out_features, layer.bias is not None, None)
    towers, num_inputs, num_outputs = layer.weight_GXH.shape
    return Int8Linear(num_inputs, num_outputs, True, towers)
