"""Model folders and training checkpoints: whole or absent."""

import os
import stat
import threading
from pathlib import Path

import fsspec
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


def test_a_folder_with_half_a_file_is_no_model(tmp_path: Path) -> None:
    """As after a power cut, when a file's name is on the disk and its content is not."""
    folder = f"{tmp_path}/model"
    for broken in ("x.npy", "weights.safetensors"):
        model_folder.save(folder, {}, {"x": np.arange(3)}, WEIGHTS)
        assert model_folder.exists(folder) and not model_folder.damaged(folder)
        os.truncate(f"{folder}/{broken}", 10)
        assert not model_folder.exists(folder) and model_folder.damaged(folder) == [broken]
    model_folder.save(folder, {}, {"x": np.arange(3)}, WEIGHTS)
    (tmp_path / "model" / "x.npy").unlink()
    assert not model_folder.exists(folder) and model_folder.damaged(folder) == ["x.npy"]
    (tmp_path / "model" / "manifest.json").write_text('{"files": {"x')
    assert not model_folder.exists(folder)


def test_a_removal_that_is_killed_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest goes first: half a folder must not be taken for a whole one."""
    model_folder.save(f"{tmp_path}/model", {}, {"x": np.arange(3)})

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.rm", killed)
    with pytest.raises(KeyboardInterrupt):
        model_folder.remove(f"{tmp_path}/model")
    assert (tmp_path / "model" / "x.npy").exists() and not model_folder.exists(f"{tmp_path}/model")


def test_two_attempts_of_one_task_write_one_folder(tmp_path: Path) -> None:
    """Spark may start a slow task a second time: a reader finds whole files meanwhile, and the folder stays a model."""
    folder, big = f"{tmp_path}/model", np.arange(200_000)
    model_folder.save(folder, {"a": 1}, {"x": big})
    stop = threading.Event()

    def again() -> None:
        while not stop.is_set():
            model_folder.save(folder, {"a": 1}, {"x": big})

    writers = [threading.Thread(target=again) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(200):
            assert model_folder.exists(folder) and model_folder.read_manifest(folder) == {"a": 1}
            np.testing.assert_array_equal(model_folder.open_array(folder, "x")[-3:], big[-3:])
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert {file.name for file in Path(folder).iterdir()} == {"x.npy", "manifest.json"}


def test_remote_folders_are_copied_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = "memory://models/one"
    model_folder.save(folder, {}, {"x": np.arange(3)})
    np.testing.assert_array_equal(model_folder.open_array(folder, "x"), [0, 1, 2])
    local = model_folder.local_copy(folder)
    assert local.is_relative_to(tmp_path) and (local / "x.npy").exists()
    stamp = (local / "x.npy").stat().st_mtime_ns
    model_folder.open_array(folder, "x")
    assert (model_folder.local_copy(folder) / "x.npy").stat().st_mtime_ns == stamp
    model_folder.forget_copy(folder)
    assert not local.exists()
    checkpoint.save_step("memory://models/steps", 1, {"a": 1}, WEIGHTS)
    assert checkpoint.latest_step("memory://models/steps")[0] == {"a": 1}  # type: ignore[index]


def test_copies_of_remote_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was made again is copied again; nobody else may write to the copies; old ones go; a copy that is
    not what the manifest says is an error."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = "memory://models/again"
    model_folder.save(folder, {}, {"x": np.arange(3)})
    first = model_folder.local_copy(folder)
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    model_folder.save(folder, {}, {"x": np.arange(4)})
    np.testing.assert_array_equal(model_folder.open_array(folder, "x"), [0, 1, 2, 3])

    os.utime(first, (0, 0))
    model_folder.save("memory://models/third", {}, {"x": np.arange(5)})
    third = model_folder.local_copy("memory://models/third")
    assert not first.exists() and {path.name for path in third.parent.iterdir()} == {
        third.name, model_folder.local_copy(folder).name,
    }  # fmt: skip

    model_folder.save(folder, {}, {"x": np.arange(6)})
    fsspec.filesystem("memory").pipe_file("/models/again/x.npy", b"something else")
    with pytest.raises(DataError, match=r"models/again: x\.npy differ from manifest\.json; rebuild it with --force"):
        model_folder.local_copy(folder)
    with pytest.raises(DataError, match=r"has no readable manifest\.json"):
        model_folder.local_copy("memory://models/none")
