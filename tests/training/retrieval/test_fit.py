"""Training of a bundle's retrievers on histories' shards, in this process."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from recspark import model_folder
from recspark.config.retrievers import Retriever
from recspark.errors import DataError
from recspark.histories import USERS_A_SHARD, Histories, finish, save_shard
from recspark.models.retrievers import sequence
from recspark.training import entry
from recspark.training.retrieval import fit
from recspark.training.retrieval.job import TRAINER, RetrieverJob, RetrieverTask


def shards(folder: Path) -> str:
    """User 0: items 1, 2, 3; user 2: item 4; a user of the second shard: items 5, 6."""
    place, far = f"{folder}/histories", USERS_A_SHARD + 7
    first = (np.array([0, 2]), np.array([0, 3, 4]), np.array([1, 2, 3, 4]), np.array([0, 1, 0, 1]))
    save_shard(place, 0, *first, np.array([1.0, 2.0, 3.0, 9.0]))
    save_shard(place, 1, np.array([far]), np.array([0, 2]), np.array([5, 6]), np.array([1, 1]), np.array([4.0, 5.0]))
    finish(place, [0, 1], {})
    return place


def test_shards_become_histories_without_users_without_events(tmp_path: Path) -> None:
    found = fit.read(shards(tmp_path))
    assert found.offsets.tolist() == [0, 3, 4, 6]  # users 0, 2 and the one far away
    assert found.item_idx.tolist() == [1, 2, 3, 4, 5, 6] and found.scenario_idx.tolist() == [0, 1, 0, 1, 1, 1]
    assert found.time.tolist() == [1, 2, 3, 9, 4, 5] and found.weight.tolist() == [1] * 6


def histories(sizes: list[int], last_scenario: list[int]) -> Histories:
    """Users with so many events of items 0, 1, 2 ...; all in scenario 0 but the last one of each."""
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    item = np.concatenate([np.arange(size) for size in sizes])
    scenario = np.zeros(offsets[-1], dtype=int)
    scenario[offsets[1:] - 1] = last_scenario
    ones = np.ones(offsets[-1])
    return Histories(offsets, item, scenario, np.arange(offsets[-1], dtype=float), ones, ones, ones)


def test_a_tenth_of_the_users_with_three_events_validates() -> None:
    h = histories([3] * 20 + [2] * 5, [0] * 25)
    known, validation = fit.hold_out(h, np.random.default_rng(0), None)
    assert len(validation.users) == 2 and (validation.users < 20).all()
    assert (h.item_idx[validation.newest] == 2).all()  # the newest of three
    sizes = np.diff(known.offsets)
    assert sizes[validation.users].tolist() == [2, 2] and len(known.item_idx) == 70 - 2
    assert np.delete(sizes, validation.users).tolist() == [3] * 18 + [2] * 5


def test_with_a_target_only_its_users_validate() -> None:
    h = histories([3] * 20, [1] * 10 + [0] * 10)
    _, validation = fit.hold_out(h, np.random.default_rng(0), 1)
    assert len(validation.users) == 1 and validation.users[0] < 10


def job_of(folder: Path, name: str, settings: dict[str, object]) -> RetrieverJob:
    """Train one retriever on seven items without content."""
    model_folder.save(f"{folder}/bundle", {"content_parts": [1]}, {"content": np.zeros((7, 1), np.float32)})
    task = RetrieverTask(name, f"{folder}/bundle", shards(folder), {"a": 0, "b": 1})
    return RetrieverJob((task,), Retriever.model_validate({name: settings}), seed=0)


def test_a_trained_retriever_is_saved_without_its_checkpoints(tmp_path: Path) -> None:
    settings = {"dim": 4, "layers": 1, "heads": 1, "negatives": 3, "max_epochs": 2}
    job = job_of(tmp_path, "sequence", settings)
    assert entry.run(TRAINER, pickle.loads(pickle.dumps(job))) == {"trained": 1}
    folder = f"{tmp_path}/bundle/sequence"
    manifest = model_folder.read_manifest(folder)
    model = sequence.from_arrays(manifest["model"], {n: model_folder.open_array(folder, n) for n in manifest["arrays"]})
    assert model.num_items == 7 and model.num_scenarios == 2 and model.content_ID is None
    assert manifest["target"] is None and not (Path(folder) / fit.STEPS).exists()


def test_nothing_to_learn_from_saves_no_model(tmp_path: Path) -> None:
    job = job_of(tmp_path, "content_towers", {"dim": 2, "negatives": 3, "max_epochs": 1})
    with pytest.raises(DataError, match="found no content in the catalogue"):
        fit.train_all(job)
    assert not model_folder.exists(f"{tmp_path}/bundle/content_towers")


@pytest.mark.parametrize(("name", "expected"), [("b", 1), ("never seen", 0)])
def test_the_target_is_a_group(tmp_path: Path, name: str, expected: int) -> None:
    """A scenario without an event yet belongs to the group of small ones, 0."""
    settings = {"mode": "finetune", "target": name, "dim": 4, "layers": 1, "heads": 1, "negatives": 3, "max_epochs": 1}
    fit.train_all(job_of(tmp_path, "sequence", settings))
    assert model_folder.read_manifest(f"{tmp_path}/bundle/sequence")["target"] == expected
