"""The dense layers of sentence-transformers, after the pooling: each a matrix and an activation."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from recspark.errors import ConfigError

ACTIVATIONS = {kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)}


def load_dense(name: str, folder: Path) -> nn.Module:
    """The layer in a folder (config.json, model.safetensors) for inference.

    Raises: ConfigError where the folder holds something else.
    """
    if not (folder / "model.safetensors").exists():
        raise ConfigError(f"encoder {name!r}: {folder} has no model.safetensors; save the model in that format")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = {
        key.removeprefix("linear."): value.float() for key, value in load_file(folder / "model.safetensors").items()
    }
    activation = config.get("activation_function", "Tanh").rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS or "weight" not in weights or not weights.keys() <= {"weight", "bias"}:
        raise ConfigError(
            f"encoder {name!r}: {folder} has the weights {sorted(weights)} and the activation {activation!r}, expected "
            f"one matrix and one of {sorted(ACTIVATIONS)}; choose another model"
        )
    wide, narrow = weights["weight"].shape[1], weights["weight"].shape[0]
    linear = nn.Linear(wide, narrow, bias="bias" in weights, device=torch.device("meta"))
    linear.load_state_dict(weights, assign=True)
    return nn.Sequential(linear, ACTIVATIONS[activation]()).requires_grad_(False).eval()
