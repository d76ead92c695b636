"""Training of a bundle's retrievers from histories' shards, in this process."""

from pathlib import Path

import numpy as np
import pytest

from recspark import model_folder
from recspark.histories import USERS_A_SHARD, Histories, finish, save_shard
from recspark.models.retrievers import content_towers, sequence
from recspark.training.retrieval import fit as retriever_job


def shards(folder: Path) -> str:
    """User 0: items 1, 2, 3; user 2: item 4; a user of the second shard: items 5, 6."""
    place, far = f"{folder}/histories", USERS_A_SHARD + 7
    first = (np.array([0, 2]), np.array([0, 3, 4]), np.array([1, 2, 3, 4]), np.array([0, 1, 0, 1]))
    save_shard(place, 0, *first, np.array([1.0, 2.0, 3.0, 9.0]))
    save_shard(place, 1, np.array([far]), np.array([0, 2]), np.array([5, 6]), np.array([1, 1]), np.array([4.0, 5.0]))
    finish(place, [0, 1], {})
    return place


def test_shards_become_histories_without_users_who_had_nothing(tmp_path: Path) -> None:
    found = retriever_job.read(shards(tmp_path))
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


def test_a_tenth_of_the_users_with_three_events_judges() -> None:
    h = histories([3] * 20 + [2] * 5, [0] * 25)
    known, asked = retriever_job.hold_out(h, np.random.default_rng(0), None)
    assert len(asked.users) == 2 and (asked.users < 20).all()
    assert (h.item_idx[asked.last] == 2).all()  # the newest of three
    sizes = np.diff(known.offsets)
    assert sizes[asked.users].tolist() == [2, 2] and len(known.item_idx) == 70 - 2
    assert np.delete(sizes, asked.users).tolist() == [3] * 18 + [2] * 5


def test_with_a_target_only_its_users_judge() -> None:
    h = histories([3] * 20, [1] * 10 + [0] * 10)
    _, asked = retriever_job.hold_out(h, np.random.default_rng(0), 1)
    assert len(asked.users) == 1 and asked.users[0] < 10


def task(folder: Path, name: str, content: np.ndarray) -> retriever_job.Task:
    model_folder.save(f"{folder}/bundle", {"content_parts": [content.shape[1]]}, {"content": content})
    return retriever_job.Task(name, f"{folder}/bundle", shards(folder), {"a": 0, "b": 1})


def test_a_trained_retriever_is_saved_without_its_checkpoints(tmp_path: Path) -> None:
    settings = {"mode": "joint", "target": None, "dim": 4, "layers": 1, "heads": 1, "negatives": 3, "max_epochs": 2}
    asked = task(tmp_path, "sequence", np.zeros((7, 1), np.float32))
    answer = retriever_job.run(retriever_job.Job((asked,), {"sequence": settings}, 0).to_json())
    assert answer == {"trained": 1}
    folder = f"{tmp_path}/bundle/sequence"
    manifest = model_folder.read_manifest(folder)
    model = sequence.from_arrays(manifest["model"], {n: model_folder.open_array(folder, n) for n in manifest["arrays"]})
    assert model.num_items == 7 and model.num_scenarios == 2 and model.content_ID is None
    assert manifest["target"] is None and not (Path(folder) / retriever_job.STEPS).exists()


def test_what_cannot_be_learnt_comes_home_as_a_message(tmp_path: Path) -> None:
    asked = task(tmp_path, "content_towers", np.zeros((7, 1), np.float32))
    settings = {"content_towers": {"dim": 2, "negatives": 3, "max_epochs": 1}}
    answer = retriever_job.run(retriever_job.Job((asked,), settings, 0).to_json())
    assert "found no content in the catalogue" in answer["error"]
    assert not model_folder.exists(f"{tmp_path}/bundle/content_towers")
    assert content_towers.Settings(**settings["content_towers"]).dim == 2


@pytest.mark.parametrize(("name", "expected"), [("b", 1), ("never seen", 0)])
def test_the_target_is_a_group(tmp_path: Path, name: str, expected: int) -> None:
    """A scenario without an event yet belongs to the group of small ones, 0."""
    settings = {"mode": "finetune", "target": name, "dim": 4, "layers": 1, "heads": 1, "negatives": 3, "max_epochs": 1}
    retriever_job.fit(task(tmp_path, "sequence", np.zeros((7, 1), np.float32)), settings, 0)
    assert model_folder.read_manifest(f"{tmp_path}/bundle/sequence")["target"] == expected
