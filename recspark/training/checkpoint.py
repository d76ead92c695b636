"""Checkpoints of a training: one model folder per saved step, of which the newest complete one is kept."""

from collections.abc import Mapping
from typing import Any

import fsspec
from safetensors.numpy import load as load_tensors

from recspark.arrays import Array
from recspark.model_folder import WEIGHTS, exists, read_manifest, save


def save_step(folder: str, step: int, state: Mapping[str, Any], tensors: Mapping[str, Array]) -> None:
    """Save a training's tensors (weights, optimizer) and JSON state after a step; then remove the older steps."""
    save(f"{folder}/step-{step:09d}", state, weights=tensors)
    fs, root = fsspec.core.url_to_fs(folder)
    for name in _steps(fs, root)[:-1]:
        fs.rm(f"{root}/{name}", recursive=True)


def latest_step(folder: str) -> tuple[dict[str, Any], dict[str, Array]] | None:
    """(state, tensors) of the newest complete step, or None; a step killed halfway has no manifest and is ignored."""
    fs, root = fsspec.core.url_to_fs(folder)
    for name in reversed(_steps(fs, root)):
        if exists(f"{folder}/{name}"):
            with fs.open(f"{root}/{name}/{WEIGHTS}", "rb") as file:
                return read_manifest(f"{folder}/{name}"), dict(load_tensors(file.read()))
    return None


def _steps(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    if not fs.exists(root):
        return []
    fs.invalidate_cache(root)
    names = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)]
    return sorted(name for name in names if name.startswith("step-"))
