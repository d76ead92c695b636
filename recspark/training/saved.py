"""Rankers on disk: the spec in the manifest, the weights as safetensors, matrices in 8 bits if asked for."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from recspark.models.rankers.network import Network
from recspark.models.rankers.spec import Spec
from recspark.training import checkpoint, quantise


def save(folder: str, model: Network, manifest: Mapping[str, Any], int8: bool = False) -> None:
    weights = quantise.pack(_weights(model)) if int8 else _weights(model)
    checkpoint.save(folder, {**manifest, "spec": asdict(model.spec)}, weights=weights)


def load(folder: str) -> Network:
    """In evaluation mode, on the CPU. Raises DataError when the folder holds no whole model."""
    stored = checkpoint.read_manifest(folder)["spec"]
    spec = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    return _network(Spec(**spec), checkpoint.read_weights(folder))


def rounded(model: Network) -> Network:
    """What a model saved with int8 will be, on the CPU."""
    return _network(model.spec, quantise.pack(_weights(model)))


def _weights(model: Network) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}


def _network(spec: Spec, stored: Mapping[str, np.ndarray]) -> Network:
    model = Network(spec)
    weights = quantise.unpack(stored)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return model.eval()
