"""Model folders and training checkpoints: whole or absent."""

from pathlib import Path

import numpy as np
import pytest

from recspark import model_folder
from recspark.errors import DataError
from recspark.training import checkpoint

WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(3.0, np.float32)}


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = f"{tmp_path}/model"
    assert not model_folder.exists(folder)
    model_folder.save(folder, {"a": 1, "as_of": None}, {"x": np.arange(3)}, WEIGHTS, {"trees.txt": "tree\n"})
    assert model_folder.exists(folder)
    assert model_folder.read_manifest(folder) == {"a": 1, "as_of": None}
    np.testing.assert_array_equal(model_folder.open_array(folder, "x"), [0, 1, 2])
    assert model_folder.read_text(folder, "trees.txt") == "tree\n"
    for name, array in model_folder.read_weights(folder).items():
        np.testing.assert_array_equal(array, WEIGHTS[name])
    names = {file.name for file in Path(folder).iterdir()}
    assert names == {"x.npy", "weights.safetensors", "trees.txt", "manifest.json"}  # no pickle, nothing left over


def test_a_folder_without_manifest_is_no_model(tmp_path: Path) -> None:
    model_folder.save(f"{tmp_path}/model", {}, {"x": np.arange(3)})
    (tmp_path / "model" / "manifest.json").unlink()
    assert not model_folder.exists(f"{tmp_path}/model")
    with pytest.raises(DataError, match=r"no readable manifest.json \(FileNotFoundError\); rebuild it with --force"):
        model_folder.read_manifest(f"{tmp_path}/model")


def test_the_newest_whole_step_counts_and_older_ones_go(tmp_path: Path) -> None:
    folder = f"{tmp_path}/steps"
    assert checkpoint.latest_step(folder) is None
    for step in (9, 10, 100):  # not in the order of their names as text
        checkpoint.save_step(folder, step, {"step": step}, {"w": WEIGHTS["w"] + step})
    assert [path.name for path in Path(folder).iterdir()] == ["step-000000100"]
    torn = Path(folder) / "step-000000200"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    found = checkpoint.latest_step(folder)
    assert found is not None and found[0] == {"step": 100}
    np.testing.assert_array_equal(found[1]["w"], WEIGHTS["w"] + 100)
    model_folder.remove(folder)
    model_folder.remove(folder)  # again: nothing to do
    assert checkpoint.latest_step(folder) is None


def test_remote_folders_are_copied_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = "memory://models/one"
    model_folder.save(folder, {}, {"x": np.arange(3)})
    np.testing.assert_array_equal(model_folder.open_array(folder, "x"), [0, 1, 2])
    local = model_folder.local_copy(folder)
    assert local.is_relative_to(tmp_path) and (local / "x.npy").exists()
    stamp = (local / "x.npy").stat().st_mtime_ns
    model_folder.open_array(folder, "x")
    assert (model_folder.local_copy(folder) / "x.npy").stat().st_mtime_ns == stamp
    checkpoint.save_step("memory://models/steps", 1, {"a": 1}, WEIGHTS)
    assert checkpoint.latest_step("memory://models/steps")[0] == {"a": 1}  # type: ignore[index]
