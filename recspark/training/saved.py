"""Rankers on disk: the spec in the manifest, the weights as safetensors."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from recspark.models.rankers.network import Network
from recspark.models.rankers.spec import Spec
from recspark.training import checkpoint


def save(folder: str, model: Network, manifest: Mapping[str, Any]) -> None:
    weights = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    checkpoint.save(folder, {**manifest, "spec": asdict(model.spec)}, weights=weights)


def load(folder: str) -> Network:
    """In evaluation mode, on the CPU. Raises DataError when the folder holds no whole model."""
    stored = checkpoint.read_manifest(folder)["spec"]
    spec = {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
    model = Network(Spec(**spec))
    weights = checkpoint.read_weights(folder)
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return model.eval()
