"""Rankers on disk: the spec in the manifest, the weights as safetensors, matrices in 8 bits if so configured."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from recspark import model_folder
from recspark.arrays import Array
from recspark.models import int8
from recspark.models.rankers.network import Network
from recspark.models.rankers.spec import Spec
from recspark.training.ranking import quantise


def save(folder: str, model: Network, manifest: Mapping[str, Any]) -> None:
    """A model made by `rounded` is stored in 8 bits, and is the same when loaded."""
    weights = quantise.pack(_weights(model)) if int8.is_converted(model) else _weights(model)
    model_folder.save(folder, {**manifest, "spec": asdict(model.spec)}, weights=weights)


def load(folder: str) -> Network:
    """In evaluation mode, on the CPU.

    Raises: DataError when the folder holds no complete model.
    """
    stored = model_folder.read_manifest(folder)["spec"]
    spec: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    return _network(Spec(**spec), model_folder.read_weights(folder))


def rounded(model: Network, run: Callable[[Network], object]) -> Network:
    """A copy in 8 bits, on the CPU; `run` passes typical rows through a network."""
    copy = _network(model.spec, _weights(model))
    int8.convert(copy, lambda: run(copy))
    return _network(model.spec, quantise.pack(_weights(copy)))


def _weights(model: Network) -> dict[str, Array]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}


def _network(spec: Spec, stored: Mapping[str, Array]) -> Network:
    model, weights = Network(spec), quantise.unpack(stored)
    if len(weights) < len(stored):  # something was packed
        int8.insert_layers(model)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return model.eval()
