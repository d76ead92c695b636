"""Models on disk, all in one format: arrays as .npy (memory-mapped), weights as safetensors, a JSON manifest last.

The manifest has the size and the hash of every file. A folder without a manifest, or with a file of another size,
counts as missing, so it is made again. All access is through fsspec, so a model folder may be a URL; a remote one is
copied to this machine once, verified, and then shared by all its processes.
"""

import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeAlias

import fsspec
import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from recspark.arrays import Array
from recspark.errors import DataError

MANIFEST = "manifest.json"  # written last
WEIGHTS = "weights.safetensors"
FILES = "files"  # in the manifest: name -> size and hash
WHOLE_PUT = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "memory"}  # a file appears there when whole
Writer: TypeAlias = Callable[[Any], object]  # writes to an open file
KEPT_COPIES_S = 7 * 86_400.0  # local copies of remote folders that were not used for this long are removed


def local_copy(folder: str) -> Path:
    """The folder on this machine's disk: itself when it is local, else a copy, made once per machine and user.

    A copy is named by the folder and its manifest's hash, so a folder that was made again is copied again.

    Raises: DataError if the copy is not what the manifest says.
    """
    fs, root = fsspec.core.url_to_fs(folder)
    if "file" in _protocols(fs):
        return Path(root)
    manifest = _manifest_bytes(fs, root, folder)
    copies = _copies()
    target = _copy_of(folder, manifest)
    if not target.exists():
        _evict(copies)
        partial = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}")
        partial.mkdir()
        for name in json.loads(manifest).get(FILES, {}):
            fs.get_file(f"{root}/{name}", str(partial / name))
        (partial / MANIFEST).write_bytes(manifest)
        if broken := damaged(str(partial)):
            shutil.rmtree(partial, ignore_errors=True)
            raise DataError(
                f"model folder {folder}: {', '.join(broken)} differ from {MANIFEST}; rebuild it with --force"
            )
        try:
            os.replace(partial, target)
        except OSError:  # another process of this machine was faster
            shutil.rmtree(partial, ignore_errors=True)
    os.utime(target)
    return target


def forget_copy(folder: str) -> None:
    """Remove this machine's copy of a remote folder, as the folder is now."""
    fs, root = fsspec.core.url_to_fs(folder)
    if "file" not in _protocols(fs):
        shutil.rmtree(_copy_of(folder, _manifest_bytes(fs, root, folder)), ignore_errors=True)


def _copy_of(folder: str, manifest: bytes) -> Path:
    return _copies() / hashlib.sha256(folder.encode() + b"\0" + manifest).hexdigest()[:24]


def _copies() -> Path:
    """The folder of this user's copies, which nobody else may write.

    Raises: DataError if somebody else has made it.
    """
    uid = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"recspark-models-{uid}"
    path.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and path.stat().st_uid != uid:
        raise DataError(f"{path} belongs to another user, expected ours; remove it, or set TMPDIR to another folder")
    return path


def evict_copies() -> None:
    """Remove this machine's copies of remote folders that were not used for KEPT_COPIES_S."""
    _evict(_copies())


def _evict(copies: Path) -> None:
    old = time.time() - KEPT_COPIES_S
    for path in copies.iterdir():
        if path.stat().st_mtime < old:  # a process that still reads it keeps its open files
            shutil.rmtree(path, ignore_errors=True)


def save(
    folder: str,
    manifest: Mapping[str, Any],
    arrays: Mapping[str, Array] | None = None,
    weights: Mapping[str, Array] | None = None,
    texts: Mapping[str, str] | None = None,
    weights_file: str = WEIGHTS,
) -> None:
    """Write one model folder: each array as `<name>.npy`, all weights in one safetensors file, `texts` (file name ->
    content) as they are, then the manifest. Each file appears whole or not at all, so two attempts of one task may
    write the same folder at once."""
    fs, root = fsspec.core.url_to_fs(folder)
    fs.makedirs(root, exist_ok=True)
    contents: dict[str, Writer] = {
        f"{name}.npy": partial(np.save, arr=array, allow_pickle=False) for name, array in (arrays or {}).items()
    }
    if weights:
        contents[weights_file] = _all_of(save_tensors({k: np.ascontiguousarray(v) for k, v in weights.items()}))
    contents |= {name: _all_of(text.encode()) for name, text in (texts or {}).items()}
    files = {name: _write(fs, f"{root}/{name}", write) for name, write in contents.items()}
    described = {**manifest, FILES: files} if files else manifest
    text = json.dumps(described, sort_keys=True, indent=1, default=str)
    _write(fs, f"{root}/{MANIFEST}", _all_of(text.encode()))


def _all_of(data: bytes) -> Writer:
    return lambda file: file.write(data)


class _Hashing(io.RawIOBase):
    """Passes on what is written, and adds it up."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.bytes, self.hash = file, 0, hashlib.sha256()

    def write(self, data: Any) -> int:
        part = memoryview(data).cast("B")
        self.hash.update(part)
        self.bytes += part.nbytes
        self._file.write(part)
        return part.nbytes


def _write(fs: fsspec.AbstractFileSystem, path: str, write: Writer) -> dict[str, Any]:
    """Write one file and return its size and hash. A process killed halfway leaves no partial file under its name."""
    atomic = not WHOLE_PUT.isdisjoint(_protocols(fs))
    temporary = path if atomic else f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    with fs.open(temporary, "wb") as file:
        hashing = _Hashing(file)
        write(hashing)
    if not atomic:
        fs.mv(temporary, path)
    return {"bytes": hashing.bytes, "sha256": hashing.hash.hexdigest()}


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)


def exists(folder: str) -> bool:
    """Is there a complete model: a manifest, and every file that it names with the size that it says?"""
    fs, root = fsspec.core.url_to_fs(folder)
    try:
        files = json.loads(fs.cat_file(f"{root}/{MANIFEST}")).get(FILES, {})
        if not files:
            return True
        fs.invalidate_cache(root)
        sizes = {str(one["name"]).rsplit("/", 1)[-1]: one["size"] for one in fs.ls(root, detail=True)}
    except (FileNotFoundError, ValueError):
        return False
    return all(sizes.get(name) == file["bytes"] for name, file in files.items())


def damaged(folder: str) -> list[str]:
    """The files of a folder that are not as its manifest says, by their hashes; reads all of them."""
    fs, root = fsspec.core.url_to_fs(folder)
    files = json.loads(_manifest_bytes(fs, root, folder)).get(FILES, {})
    return sorted(name for name, file in files.items() if _hash(fs, f"{root}/{name}") != file["sha256"])


def _hash(fs: fsspec.AbstractFileSystem, path: str) -> str | None:
    found = hashlib.sha256()
    try:
        with fs.open(path, "rb") as file:
            while part := file.read(1 << 22):
                found.update(part)
    except FileNotFoundError:
        return None
    return found.hexdigest()


def _manifest_bytes(fs: fsspec.AbstractFileSystem, root: str, folder: str) -> bytes:
    try:
        return bytes(fs.cat_file(f"{root}/{MANIFEST}"))
    except FileNotFoundError as error:
        raise _unreadable(folder, error) from None


def _unreadable(folder: str, error: Exception) -> DataError:
    return DataError(
        f"model folder {folder} has no readable {MANIFEST} ({type(error).__name__}); rebuild it with --force"
    )


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of a model folder.

    Raises: DataError when the folder has no readable manifest, so no complete model.
    """
    fs, root = fsspec.core.url_to_fs(folder)
    try:
        found = dict(json.loads(_manifest_bytes(fs, root, folder)))
    except json.JSONDecodeError as error:
        raise _unreadable(folder, error) from None
    found.pop(FILES, None)
    return found


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
    """Remove a folder and everything in it, if it exists. The manifest goes first: half a folder counts as missing."""
    fs, root = fsspec.core.url_to_fs(folder)
    if fs.exists(f"{root}/{MANIFEST}"):
        fs.rm_file(f"{root}/{MANIFEST}")
    if fs.exists(root):
        fs.rm(root, recursive=True)


def write_file(path: str, text: str) -> None:
    """One file beside the folders, whole or not at all."""
    fs, root = fsspec.core.url_to_fs(path)
    fs.makedirs(root.rsplit("/", 1)[0], exist_ok=True)
    _write(fs, root, _all_of(text.encode()))


def read_file(path: str) -> str | None:
    """What `write_file` wrote; None where there is nothing."""
    fs, root = fsspec.core.url_to_fs(path)
    try:
        return str(fs.cat_file(root).decode())
    except FileNotFoundError:
        return None
