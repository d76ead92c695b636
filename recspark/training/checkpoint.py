"""The only writer of models: arrays as .npy (memory-mapped on reading), weights as safetensors, a JSON manifest last.

A folder without a manifest does not exist. Everything goes through fsspec, so a model folder may be a URL; a remote one
is copied to this machine once and then shared by all its processes.
"""

import json
import uuid
from collections.abc import Mapping
from typing import Any

import fsspec
import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from recspark.errors import DataError
from recspark.model_folder import MANIFEST, local_copy

WEIGHTS = "weights.safetensors"


def save(
    folder: str,
    manifest: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
    texts: Mapping[str, str] | None = None,
    weights_file: str = WEIGHTS,
) -> None:
    """Write one model folder: `<name>.npy` an array, all weights in one safetensors file, `texts` as they are (file
    name -> content), then the manifest."""
    fs, root = fsspec.core.url_to_fs(folder)
    fs.makedirs(root, exist_ok=True)
    for name, array in (arrays or {}).items():
        with fs.open(f"{root}/{name}.npy", "wb") as file:
            np.save(file, array, allow_pickle=False)
    if weights:
        _write(fs, f"{root}/{weights_file}", save_tensors({k: np.ascontiguousarray(v) for k, v in weights.items()}))
    for name, text in (texts or {}).items():
        _write(fs, f"{root}/{name}", text.encode())
    _write(fs, f"{root}/{MANIFEST}", json.dumps(manifest, sort_keys=True, indent=1, default=str).encode())


def _write(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    """Through a second name, so that a process killed halfway leaves no torn file under the real one."""
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    with fs.open(temporary, "wb") as file:
        file.write(data)
    fs.mv(temporary, path)


def exists(folder: str) -> bool:
    """Is there a whole model: one with a manifest?"""
    fs, root = fsspec.core.url_to_fs(folder)
    return bool(fs.exists(f"{root}/{MANIFEST}"))


def read_manifest(folder: str) -> dict[str, Any]:
    """Raises DataError when the folder holds no whole model."""
    fs, root = fsspec.core.url_to_fs(folder)
    try:
        with fs.open(f"{root}/{MANIFEST}", "rb") as file:
            return dict(json.loads(file.read()))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        reason = type(error).__name__
        raise DataError(
            f"model folder {folder} has no readable {MANIFEST} ({reason}); rebuild it with --force"
        ) from None


def open_array(folder: str, name: str) -> np.ndarray:
    """One array, memory-mapped and read-only: processes of one machine share its pages."""
    return np.load(local_copy(folder) / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def read_weights(folder: str) -> dict[str, np.ndarray]:
    return dict(load_tensors((local_copy(folder) / WEIGHTS).read_bytes()))


def read_text(folder: str, name: str) -> str:
    return (local_copy(folder) / name).read_text(encoding="utf-8")


# -- a training that may be killed -------------------------------------------------------------------------------------


def save_step(folder: str, step: int, state: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Keep a training's tensors (weights, optimizer) and JSON state after a step; older ones go when it is whole."""
    save(f"{folder}/step-{step:09d}", state, weights=tensors)
    fs, root = fsspec.core.url_to_fs(folder)
    for name in _steps(fs, root)[:-1]:
        fs.rm(f"{root}/{name}", recursive=True)


def latest_step(folder: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """(state, tensors) of the newest whole step, or None; a step killed halfway has no manifest and does not count."""
    fs, root = fsspec.core.url_to_fs(folder)
    for name in reversed(_steps(fs, root)):
        if exists(f"{folder}/{name}"):
            with fs.open(f"{root}/{name}/{WEIGHTS}", "rb") as file:
                return read_manifest(f"{folder}/{name}"), dict(load_tensors(file.read()))
    return None


def remove(folder: str) -> None:
    """Remove a folder and all in it, if it is there."""
    fs, root = fsspec.core.url_to_fs(folder)
    if fs.exists(root):
        fs.rm(root, recursive=True)


def _steps(fs: fsspec.AbstractFileSystem, root: str) -> list[str]:
    if not fs.exists(root):
        return []
    fs.invalidate_cache(root)
    names = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False)]
    return sorted(name for name in names if name.startswith("step-"))
