"""A model folder on this machine, wherever the warehouse lies. Imports nothing of recspark."""

import hashlib
import os
import shutil
import tempfile
import uuid
from pathlib import Path

import fsspec

MANIFEST = "manifest.json"  # written last: a folder without one does not exist


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
