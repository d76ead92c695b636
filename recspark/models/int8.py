"""Linear layers in 8-bit integers: a quarter of the bytes, and faster on CPUs that multiply bytes (VNNI, AMX).

Weights have one quantisation step per output unit, activations one per row: so a row's result does not depend on its
batch, and since integer sums are exact, not even in its last bit. First each input is divided by a factor and its
weights are multiplied with it, so that inputs of very different size all keep their precision.
Reference: Xiao et al. 2023, SmoothQuant.

Shape suffixes: B rows (of any number of dimensions), X inputs, H outputs, G towers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from recspark.models.towers import Groups

LEVELS = 127
TINY = 1e-30


class Int8Linear(nn.Module):
    """A replacement of an nn.Linear, or with `towers` of a GroupedLinear: same inputs and outputs, for scoring only."""

    weight_XH: Tensor
    steps_H: Tensor
    shrink_X: Tensor
    bias_H: Tensor | None

    def __init__(self, num_inputs: int, num_outputs: int, bias: bool, towers: int | None) -> None:
        super().__init__()
        lead = () if towers is None else (towers,)
        self.register_buffer("weight_XH", torch.zeros(*lead, num_inputs, num_outputs, dtype=torch.int8))
        self.register_buffer("steps_H", torch.zeros(*lead, num_outputs))
        self.register_buffer("shrink_X", torch.ones(num_inputs))
        self.register_buffer("bias_H", torch.zeros(*lead, num_outputs) if bias else None)

    @torch.no_grad()
    def fit(self, weight_XH: Tensor, bias_H: Tensor | None, largest_X: Tensor) -> None:
        """Quantise float weights (G, X, H) or (X, H); `largest_X`: the largest absolute value of each input."""
        heaviest_X = weight_XH.abs().amax(dim=-1).reshape(-1, len(largest_X)).amax(dim=0)
        usable_X = (largest_X > 0) & (heaviest_X > 0)
        grow_X = torch.where(usable_X, (largest_X.clamp_min(TINY) / heaviest_X.clamp_min(TINY)).sqrt(), 1.0)
        smooth_XH = weight_XH * grow_X.unsqueeze(-1)
        steps_H = smooth_XH.abs().amax(dim=-2).clamp_min(TINY) / LEVELS
        self.weight_XH.copy_(torch.round(smooth_XH / steps_H.unsqueeze(-2)))
        self.steps_H.copy_(steps_H)
        self.shrink_X.copy_(1.0 / grow_X)
        if bias_H is not None and self.bias_H is not None:
            self.bias_H.copy_(bias_H)

    def forward(self, x_BX: Tensor, groups: Groups | None = None) -> Tensor:
        """Without groups, `x_BX` may have more leading dimensions."""
        scaled_BX = x_BX.reshape(-1, x_BX.shape[-1]) * self.shrink_X
        step_B1 = scaled_BX.abs().amax(dim=1, keepdim=True).clamp_min_(TINY).div_(LEVELS)
        codes_BX = scaled_BX.div_(step_B1).round_().to(torch.int8)
        if groups is None:
            found_BH = _product(codes_BX, step_B1, self.weight_XH, self.steps_H, self.bias_H)
            return found_BH.view(*x_BX.shape[:-1], -1)
        parts = zip(groups.towers, torch.split(codes_BX, groups.sizes), torch.split(step_B1, groups.sizes), strict=True)
        found = [self._tower(tower, codes, step) for tower, codes, step in parts]
        return torch.cat(found) if found else x_BX.new_zeros(0, self.steps_H.shape[-1])

    def _tower(self, tower: int, codes_BX: Tensor, step_B1: Tensor) -> Tensor:
        bias_H = None if self.bias_H is None else self.bias_H[tower]
        return _product(codes_BX, step_B1, self.weight_XH[tower], self.steps_H[tower], bias_H)


def _product(codes_BX: Tensor, step_B1: Tensor, weight_XH: Tensor, steps_H: Tensor, bias_H: Tensor | None) -> Tensor:
    """(B, H). In place after the integer product: copies would cost as much time as the product saves."""
    found_BH = torch._int_mm(codes_BX, weight_XH).to(torch.float32).mul_(step_B1).mul_(steps_H)
    return found_BH if bias_H is None else found_BH.add_(bias_H)


def layers_to_convert(network: nn.Module) -> dict[str, nn.Module]:
    """Name -> the layers that run in 8 bits: all except those that make logits and those whose weights are read
    directly (attention). A layer before another 8-bit one must be converted: its float32 result depends on the batch in
    the last bit, and the rounding that follows would turn that into a whole quantisation step."""
    found: dict[str, nn.Module] = {}
    kept = {f"{name}.{child}" for name, part in network.named_modules() for child in getattr(part, "weights_read", ())}
    for name, layer in network.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)  # STAR's layers contain other layers
        fits = isinstance(layer, nn.Linear) or hasattr(layer, "weight_GXH")
        if fits and not inside and "head" not in name and name not in kept:
            found[name] = layer
    return found


def is_converted(network: nn.Module) -> bool:
    return any(isinstance(layer, Int8Linear) for layer in network.modules())


def insert_layers(network: nn.Module) -> dict[str, Int8Linear]:
    """Replace the layers by empty 8-bit ones, for `fit` or a state dict to fill; name -> new layer."""
    made = {name: _empty(layer) for name, layer in layers_to_convert(network).items()}
    for name, layer in made.items():
        network.set_submodule(name, layer)
    return made


@torch.no_grad()
def convert(network: nn.Module, run: Callable[[], object]) -> None:
    """Convert a network in evaluation mode, in place; `run` passes typical rows through it."""
    layers = layers_to_convert(network)
    largest: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found_X = inputs[0].abs().reshape(-1, inputs[0].shape[-1]).amax(dim=0)
            largest[name] = torch.maximum(largest[name], found_X) if name in largest else found_X

        return record

    handles = [layer.register_forward_pre_hook(recorder(name)) for name, layer in layers.items()]
    run()
    for handle in handles:
        handle.remove()
    for name, small in insert_layers(network).items():
        weight_XH, bias_H = _weights(layers[name])
        small.fit(weight_XH, bias_H, largest.get(name, torch.zeros(weight_XH.shape[-2])))


def _weights(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weights (X, H) and bias of an nn.Linear; (G, X, H) and (G, H) of a layer with towers."""
    if isinstance(layer, nn.Linear):
        return layer.weight.T, layer.bias
    weight_GXH, bias_GH = layer.weight_GXH, layer.bias_GH
    assert isinstance(weight_GXH, Tensor) and isinstance(bias_GH, Tensor)
    return weight_GXH, bias_GH


def _empty(layer: nn.Module) -> Int8Linear:
    weight_XH, bias_H = _weights(layer)
    *towers, num_inputs, num_outputs = weight_XH.shape
    return Int8Linear(num_inputs, num_outputs, bias_H is not None, towers[0] if towers else None)
