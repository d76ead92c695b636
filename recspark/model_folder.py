"""Models on disk, all in one format: arrays as .npy (memory-mapped), weights as safetensors, a JSON manifest last.

A folder without a manifest counts as missing. All access is through fsspec, so a model folder may be a URL; a remote
one is copied to this machine once and then shared by all its processes.
"""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from recspark.arrays import Array
from recspark.errors import DataError

MANIFEST = "manifest.json"  # written last
WEIGHTS = "weights.safetensors"


def local_copy(folder: str) -> Path:
    """The folder on this machine's disk: itself when it is local, else a copy made once per machine."""
    fs, root = fsspec.core.url_to_fs(folder)
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        return Path(root)
    target = Path(tempfile.gettempdir()) / "recspark-models" / hashlib.sha256(folder.encode()).hexdigest()[:24]
    if not (target / MANIFEST).exists():
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}")
        fs.get(root.rstrip("/") + "/", str(partial) + "/", recursive=True)
        try:
            os.replace(partial, target)
        except OSError:  # another process of this machine was faster
            shutil.rmtree(partial, ignore_errors=True)
    return target


def save(
    folder: str,
    manifest: Mapping[str, Any],
    arrays: Mapping[str, Array] | None = None,
    weights: Mapping[str, Array] | None = None,
    texts: Mapping[str, str] | None = None,
    weights_file: str = WEIGHTS,
) -> None:
    """Write one model folder: each array as `<name>.npy`, all weights in one safetensors file, `texts` (file name ->
    content) as they are, then the manifest."""
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
    """Write under another name, then rename: a process killed halfway leaves no partial file under the real name."""
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    with fs.open(temporary, "wb") as file:
        file.write(data)
    fs.mv(temporary, path)


def exists(folder: str) -> bool:
    """Is there a complete model, one with a manifest?"""
    fs, root = fsspec.core.url_to_fs(folder)
    return bool(fs.exists(f"{root}/{MANIFEST}"))


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a model folder.

    Raises: DataError when the folder has no readable manifest, so no complete model.
    """
    fs, root = fsspec.core.url_to_fs(folder)
    try:
        with fs.open(f"{root}/{MANIFEST}", "rb") as file:
            return dict(json.loads(file.read()))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        reason = type(error).__name__
        raise DataError(
            f"model folder {folder} has no readable {MANIFEST} ({reason}); rebuild it with --force"
        ) from None


def open_array(folder: str, name: str) -> Array:
    """One array, memory-mapped and read-only: processes of one machine share its pages."""
    array: Array = np.load(local_copy(folder) / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    return array


def read_weights(folder: str) -> dict[str, Array]:
    """All weights, by name."""
    return dict(load_tensors((local_copy(folder) / WEIGHTS).read_bytes()))


def read_text(folder: str, name: str) -> str:
    """The content of one of `texts`."""
    return (local_copy(folder) / name).read_text(encoding="utf-8")


def remove(folder: str) -> None:
    """Remove a folder and everything in it, if it exists."""
    fs, root = fsspec.core.url_to_fs(folder)
    if fs.exists(root):
        fs.rm(root, recursive=True)


def write_file(path: str, text: str) -> None:
    """One file beside the folders, whole or not at all."""
    fs, root = fsspec.core.url_to_fs(path)
    fs.makedirs(root.rsplit("/", 1)[0], exist_ok=True)
    _write(fs, root, text.encode())


def read_file(path: str) -> str | None:
    """What `write_file` wrote; None where there is nothing."""
    fs, root = fsspec.core.url_to_fs(path)
    try:
        return str(fs.cat_file(root).decode())
    except FileNotFoundError:
        return None
