"""Rankers on disk: the spec in the manifest, the weights as safetensors, matrices in 8 bits if asked for."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from recspark.models import int8 as layers8
from recspark.models.rankers.network import Network
from recspark.models.rankers.spec import Spec
from recspark.training import checkpoint, quantise


def save(folder: str, model: Network, manifest: Mapping[str, Any], int8: bool = False) -> None:
    """`int8`: of a model that `rounded` gave; read back it is the same."""
    weights = quantise.pack(_weights(model)) if int8 else _weights(model)
    checkpoint.save(folder, {**manifest, "spec": asdict(model.spec), "eight_bits": int8}, weights=weights)


def load(folder: str) -> Network:
    """In evaluation mode, on the CPU. Raises DataError when the folder holds no whole model."""
    manifest = checkpoint.read_manifest(folder)
    spec = {name: tuple(value) if isinstance(value, list) else value for name, value in manifest["spec"].items()}
    return _network(Spec(**spec), checkpoint.read_weights(folder), manifest["eight_bits"])


def rounded(model: Network, run: Callable[[Network], object]) -> Network:
    """A copy in 8 bits, on the CPU; `run` passes typical rows through a network."""
    copy = _network(model.spec, _weights(model), int8=False)
    layers8.convert(copy, lambda: run(copy))
    return _network(model.spec, quantise.pack(_weights(copy)), int8=True)


def _weights(model: Network) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}


def _network(spec: Spec, stored: Mapping[str, np.ndarray], int8: bool) -> Network:
    model = Network(spec)
    if int8:
        layers8.swap(model)
    weights = quantise.unpack(stored)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return model.eval()
