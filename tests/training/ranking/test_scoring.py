"""What scoring computes once for many rows gives the rows' own scores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from recspark import model_folder
from recspark.errors import DataError
from recspark.histories import HistoryBook
from recspark.metrics import auc
from recspark.models.layers import look_up
from recspark.models.rankers import network
from recspark.models.rankers.catalogue import BODIES
from recspark.models.rankers.spec import Spec
from recspark.training.ranking import saved, scoring
from recspark.training.ranking.fit import train_all
from recspark.training.ranking.job import RankerModel
from tests.training import planted

NUM_KNOWN = 15  # items of the network; the content has planted.NUM_ITEMS = 20, and 24 exist


def made(model: str) -> network.Network:
    spec = Spec(planted.FEATURES, ("click",), ("binary",), NUM_KNOWN, 3, 1, 6, 4, (16, 8), 3, 0.0, model)
    found = network.build(spec, 0)
    found.fit(dense(400), np.arange(400) % 3, np.ones((400, 1), np.float32))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in found.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.5)
    return found.eval()


def dense(num_rows: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    found = rng.normal(size=(num_rows, 3)).astype(np.float32)
    found[rng.random(num_rows) < 0.3, 2] = np.nan
    return found


def test_a_ranker_learns_from_given_features(tmp_path: Path) -> None:
    """Users click the items of their own kind, which nothing else shows: without `given` scores are chance (AUC .5).
    Scoring looks up what training did: the same probabilities, in any order of the rows."""
    found = {}
    for name in ("without", "with"):
        folder = tmp_path / name
        window = planted.window(folder, 6000, rows=planted.alike)
        if name == "with":
            window = replace(window, given=planted.given(folder))
        model = RankerModel("evaluated", f"{folder}/model", (window,))
        train_all(planted.job((model,), (planted.task("click"),), max_epochs=6))
        rows = planted.alike(2000, seed=99)
        ids = tuple(rows[column] for column in ("scenario_idx", "user_idx", "item_idx"))
        inputs = np.stack([rows[column] for column in planted.FEATURES], axis=1)
        where = (model.folder, window.histories, window.bundle, planted.DAY)
        found[name] = scoring.probabilities(*where, inputs, ids, window.given)
        turned = (np.ascontiguousarray(inputs[::-1]), tuple(column[::-1].copy() for column in ids))
        back = scoring.probabilities(*where, *turned, window.given)
        np.testing.assert_allclose(back[::-1], found[name], atol=1e-6, rtol=0)
    assert auc(rows["label_click"], found["with"]) > 0.95 and auc(rows["label_click"], found["without"]) < 0.6
    with pytest.raises(DataError, match=r"other features than .* was trained with"):
        scoring.probabilities(*where, inputs, ids)


@pytest.mark.parametrize("model", BODIES)
def test_shared_vectors_and_histories_are_each_rows_own(model: str, tmp_path: Path) -> None:
    """Against a network that looks up every row for itself: neighbours of one user, strangers, items nobody knows."""
    window, folder = planted.window(tmp_path), f"{tmp_path}/{model}"
    saved.save(folder, made(model), {})
    rng = np.random.default_rng(3)
    user = np.concatenate((np.repeat(rng.integers(-1, 60, 30), 9), rng.integers(-1, 60, 30)))
    rows, scenario, item = len(user), rng.integers(0, 4, len(user)), rng.integers(0, 24, len(user))
    history = HistoryBook({planted.DAY: window.histories}).block(user, np.full(rows, planted.DAY), 3)
    content = model_folder.open_array(window.bundle, "content")
    with torch.inference_mode():
        logits = saved.load(folder)(look_up(dense(rows), scenario, item, history, content))
    expected = torch.sigmoid(logits[:, 0].double()).numpy()
    ids = (scenario.astype(np.int32), user.astype(np.int32), item.astype(np.int32))

    def scores(at: np.ndarray) -> np.ndarray:
        where = (folder, window.histories, window.bundle, planted.DAY)
        return scoring.probabilities(*where, dense(rows)[at], tuple(column[at] for column in ids))

    assert expected.std() > 0.02
    for at in (np.arange(rows), rng.permutation(rows), np.arange(3)):
        np.testing.assert_allclose(scores(at), expected[at], atol=1e-6, rtol=0)
    assert len(scores(np.arange(0))) == 0


def test_a_vector_is_computed_when_it_is_first_asked_for() -> None:
    content = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    model = made("single")
    vectors = scoring.ItemVectors(model, content)
    assert vectors.places(np.array([[3, -1], [19, 23]])).tolist() == [[4, 0], [20, 21]]
    assert vectors.places(np.array([99])).tolist() == [21]  # as item 23, which nobody knows either
    filled = np.flatnonzero(vectors.table.abs().sum(dim=1).numpy())
    assert filled.tolist() == [0, 4, 20, 21]
    with torch.inference_mode():
        alone = model.encoder.vectors(torch.tensor([20]), torch.from_numpy(content[19:]))
    np.testing.assert_allclose(vectors.table[20:21], alone, atol=1e-6)
