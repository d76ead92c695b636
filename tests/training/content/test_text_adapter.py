"""Adapters of tiny random models: planted pairs are learnt, noise changes nothing, a folder is what was trained."""

import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from recspark import model_folder
from recspark.config.content import TextAdapter
from recspark.encoders import text
from recspark.encoders.weights import ADAPTER, locate
from recspark.errors import ConfigError, TrainingError
from recspark.training.content import text_adapter
from recspark.training.content.text_adapter import AdapterJob, Pairs
from tests.encoders import tiny
from tests.training.content.planted import LEFT, RIGHT, together

SETTINGS = TextAdapter(rank=8, learning_rate=0.01, temperature=0.2, batch_size=16, max_tokens=12, max_epochs=8)


def by_chance() -> Pairs:
    """As many pairs, of any two texts."""
    rng, all_texts = np.random.default_rng(0), [*LEFT, *RIGHT]
    rows = [(n % 100, *rng.choice(32, 2, replace=False)) for n in range(400)]
    return text_adapter.pairs_of([u for u, _, _ in rows], *([all_texts[row[side]] for row in rows] for side in (1, 2)))


Trained = tuple[text_adapter.Trained, text.TextEncoder, str]  # the result, the encoder in memory, its folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build("bert", tmp_path_factory.mktemp("base") / "tiny")


def on(base: Path) -> TextAdapter:
    """SETTINGS for a base encoder."""
    return SETTINGS.model_copy(update={"encoder": str(base)})


def open_base(folder: Path) -> text.TextEncoder:
    return text.load(str(folder), device="cpu", packed=False)


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    encoder, folder = open_base(base), str(tmp_path_factory.mktemp("adapters") / "one")
    result = text_adapter.train(encoder, together(), SETTINGS, seed=3)
    text_adapter.save(folder, result, on(base), {"as_of": "2024-03-04"}, 3)
    return result, encoder, folder


def recall_at_1(encoder: text.TextEncoder) -> float:
    """Of the pairs of the users that were held out: is the partner the nearest of all other texts?"""
    pairs = text_adapter.split(together(), np.random.default_rng(3))[1]
    cosines = encoder.encode(pairs.texts) @ encoder.encode(pairs.texts).T - 9 * np.eye(len(pairs.texts))
    return float((cosines.argmax(axis=1)[pairs.left] == pairs.right).mean())


def test_what_users_take_together_comes_near(base: Path, trained: Trained) -> None:
    """Texts without a common word; judged by users who were held out."""
    result, encoder, _ = trained
    assert result.epochs > 0
    best = result.history[result.epochs]
    assert best["lower"] > 0 and best["mrr"] == max(entry["mrr"] for entry in result.history)
    assert best["gain"] == pytest.approx(best["mrr"] - result.history[0]["mrr"])
    assert recall_at_1(open_base(base)) < 0.1
    assert recall_at_1(encoder) > 0.9


def test_the_seed_decides_all(base: Path, trained: Trained) -> None:
    torch.manual_seed(99)  # what others drew does not matter
    again = text_adapter.train(open_base(base), together(), SETTINGS, seed=3)
    other = text_adapter.train(open_base(base), together(), SETTINGS, seed=4)
    assert again.history == trained[0].history
    for name, weight in trained[0].weights.items():
        np.testing.assert_array_equal(again.weights[name], weight)
    assert other.history != again.history


def test_noise_leaves_the_frozen_model(base: Path) -> None:
    encoder = open_base(base)
    result = text_adapter.train(encoder, by_chance(), SETTINGS, seed=3)
    assert result.epochs == 0 and len(result.history) == 1 + SETTINGS.max_epochs
    np.testing.assert_allclose(encoder.encode(LEFT), text.load(str(base), device="cpu").encode(LEFT), atol=1e-6)


def test_too_few_pairs_leave_the_frozen_model(base: Path, tmp_path: Path) -> None:
    for pairs in (text_adapter.pairs_of([], [], []), text_adapter.pairs_of([1], ["red"], ["lamp"])):
        result = text_adapter.train(open_base(base), pairs, SETTINGS, seed=0)
        assert result.epochs == 0 and len(result.history) == 1
    text_adapter.save(str(tmp_path / "none"), result, on(base), {}, 0)
    found = text.load(str(tmp_path / "none"), device="cpu").encode(LEFT)
    np.testing.assert_allclose(found, text.load(str(base), device="cpu").encode(LEFT), atol=1e-6)


def test_a_loss_that_is_not_finite_says_where(base: Path) -> None:
    encoder = open_base(base)
    with torch.no_grad():
        encoder.model.embeddings.word_embeddings.weight.fill_(torch.nan)
    with pytest.raises(TrainingError, match=r"loss is nan, .* in epoch 1, step 1 .*lower text_adapter.learning_rate"):
        text_adapter.train(encoder, together(), SETTINGS, seed=3)


# -- the parts ---------------------------------------------------------------------------------------------------------


def test_info_nce_by_hand() -> None:
    """Texts 0 to 3 at (1, 0), (1, 0), (0, 1), (0, 1), temperature 1; the pair is (0, 1). Anchor 0 sees 1 (1), 2 and 3
    (0); anchor 1 sees 0, 2 and 3; and without 2, a mate of 0, anchor 0 sees 1 and 3."""
    vectors = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    left, right, nobody = torch.tensor([0]), torch.tensor([1]), torch.zeros(4, 4, dtype=torch.bool)
    with_three, with_two = math.log((math.e + 2) / math.e), math.log((math.e + 1) / math.e)
    assert float(text_adapter.info_nce(vectors, left, right, nobody, 1.0)) == pytest.approx(with_three)
    known = nobody.clone()
    known[0, 2] = known[2, 0] = known[0, 1] = known[1, 0] = True
    found = text_adapter.info_nce(vectors, left, right, known, 1.0)
    assert float(found) == pytest.approx((with_two + with_three) / 2)


def test_mates_are_the_pairs_both_ways() -> None:
    pairs = text_adapter.pairs_of([1, 1, 2], ["b", "c", "a"], ["a", "d", "a"])  # a with itself is no pair
    assert (pairs.texts, pairs.left.tolist(), pairs.right.tolist()) == (list("abcd"), [1, 2], [0, 3])
    found = text_adapter.are_mates(text_adapter.mates(pairs), np.array([0, 1, 3]), 4)
    np.testing.assert_array_equal(found, [[False, True, False], [True, False, False], [False, False, False]])


def test_validation_users_are_others() -> None:
    pairs = together()
    training, valid, candidates = text_adapter.split(pairs, np.random.default_rng(0))
    assert len(np.unique(valid.user)) == 20 and not set(valid.user) & set(training.user)
    assert len(training.left) + len(valid.left) == len(pairs.left)
    assert sorted(candidates) == list(range(32))


def test_few_candidates_keep_the_texts_of_the_validation_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_adapter, "CANDIDATES", 20)
    _, valid, candidates = text_adapter.split(together(), np.random.default_rng(0))
    assert len(candidates) == len(set(candidates)) == 20 and 0 < len(valid.left) < 80
    assert {*valid.left, *valid.right} <= set(candidates)


def test_places_of_partners(base: Path) -> None:
    """Cosines to text 0: itself 1, then .8, .6, .6; ties share a place: 1 / 1, 1 / 2.5."""
    encoder = open_base(base)
    vectors = {"a": (1.0, 0.0), "b": (0.8, 0.6), "c": (0.6, 0.8), "d": (0.6, -0.8)}

    class Stub:
        def encode(self, texts: list[str]) -> np.ndarray:
            return np.array([vectors[t] for t in texts], dtype=np.float32)

    pairs = Pairs(list("abcd"), np.array([0, 0]), np.array([1, 2]), np.array([1, 2]))
    found = text_adapter.reciprocal_ranks(Stub(), pairs, np.array([3, 2, 1, 0]))
    np.testing.assert_allclose(found, [1, 1 / 2.5])
    assert encoder.dim == 16


# -- the folder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_is_the_model_in_memory(base: Path, trained: Trained, packed: bool) -> None:
    _, encoder, folder = trained
    found = text.load(folder, device="cpu", packed=packed)
    texts = [*LEFT, *RIGHT, None, "mug"]
    np.testing.assert_allclose(found.encode(texts), encoder.encode(texts), atol=1e-5)
    assert np.abs(found.encode(LEFT) - open_base(base).encode(LEFT)).max() > 0.05
    assert not any("lora" in name for name, _ in found.model.named_modules())  # merged


def test_peft_opens_the_folder(base: Path, trained: Trained) -> None:
    from peft import PeftModel

    _, encoder, folder = trained
    model = open_base(base)
    model = replace(model, model=PeftModel.from_pretrained(model.model, folder).eval())
    np.testing.assert_allclose(model.encode(LEFT), encoder.encode(LEFT), atol=1e-5)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "t5", "gpt2", "llama"])
def test_every_family_learns(family: str, tmp_path: Path) -> None:
    folder = tiny.build(family, tmp_path / family)
    encoder = open_base(folder)
    result = text_adapter.train(encoder, together(), SETTINGS.model_copy(update={"max_epochs": 3}), seed=3)
    assert result.history[-1]["loss"] < result.history[1]["loss"]
    result = replace(result, weights={name: w + np.float32(0.01) for name, w in result.weights.items()})
    text_adapter.save(str(tmp_path / "adapter"), result, on(folder), {}, 3)
    found = text.load(str(tmp_path / "adapter"), device="cpu").encode(LEFT)
    assert np.isfinite(found).all() and np.abs(found - open_base(folder).encode(LEFT)).max() > 1e-3


def test_a_folder_may_be_a_url(base: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    text_adapter.save("memory://text_adapter/one", trained[0], on(base), {"as_of": "2024-03-04"}, 3)
    found = text.load("memory://text_adapter/one", device="cpu")
    assert found.version == locate(trained[2]).version
    np.testing.assert_array_equal(found.encode(LEFT), text.load(trained[2], device="cpu").encode(LEFT))


def test_the_version_names_base_adapter_and_data(base: Path, trained: Trained, tmp_path: Path) -> None:
    result, _, folder = trained
    found = locate(folder)
    assert found.version.startswith("tiny+lora@") and len(found.version) == len("tiny+lora@") + 16
    assert found.base == locate(str(base)) and text.load(folder, device="cpu").version == found.version
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert locate(str(tmp_path / "elsewhere")).version == found.version
    versions = {found.version}
    text_adapter.save(str(tmp_path / "data"), result, on(base), {"as_of": "2024-03-11"}, 3)
    changed = replace(result, weights={name: w + 1 for name, w in result.weights.items()})
    text_adapter.save(str(tmp_path / "weights"), changed, on(base), {"as_of": "2024-03-04"}, 3)
    other = tmp_path / "other" / "tiny"
    shutil.copytree(base, other)
    (other / "special_tokens_map.json").write_text("{}")
    text_adapter.save(str(tmp_path / "base"), result, on(other), {"as_of": "2024-03-04"}, 3)
    versions |= {locate(str(tmp_path / name)).version for name in ("data", "weights", "base")}
    assert len(versions) == 4


def test_a_plain_folder_keeps_its_version(base: Path) -> None:
    assert locate(str(base)).base is None and locate(str(base)).version.startswith("tiny@")


def test_broken_adapters_are_refused(
    base: Path, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, _, folder = trained
    mine = tmp_path / "tiny"
    shutil.copytree(base, mine)
    adapter = tmp_path / "adapter"
    text_adapter.save(str(adapter), result, on(mine), {}, 3)
    (mine / "special_tokens_map.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"found the base tiny@\w+, expected tiny@\w+; restore that one"):
        text.load(str(adapter))
    shutil.rmtree(mine)
    with pytest.raises(ConfigError, match=r"its base is missing: .*there is no such folder"):
        text.load(str(adapter))
    fewer = dict(list(result.weights.items())[:-1])
    text_adapter.save(str(tmp_path / "fewer"), replace(result, weights=fewer), on(base), {}, 3)
    with pytest.raises(ConfigError, match=r"cannot be loaded \(\d+ weights that are not the \d+ of this base\)"):
        text.load(str(tmp_path / "fewer"), device="cpu")
    (tmp_path / "fewer" / text_adapter.WEIGHTS).unlink()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        text.load(str(tmp_path / "fewer"), device="cpu")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"needs the library peft; run `pip install recspark\[lora\]`"):
        text.load(folder, device="cpu")


def test_a_launch_reads_pairs_and_leaves_an_adapter(base: Path, trained: Trained, tmp_path: Path) -> None:
    """The same adapter, whatever the files and their order; the pairs are gone afterwards."""
    pairs, folder = together(), tmp_path / "adapter"
    rows = np.random.default_rng(5).permutation(len(pairs.left))
    (folder / "pairs").mkdir(parents=True)
    for part, some in enumerate(np.array_split(rows, 3)):
        sides = [[pairs.texts[i] for i in side[some]] for side in (pairs.left, pairs.right)]
        table = pa.table([pa.array(pairs.user[some]), *map(pa.array, sides)], names=list(text_adapter.PAIRS))
        pq.write_table(table, folder / "pairs" / f"part-{part}.parquet")
    job = AdapterJob(str(folder), {"as_of": "2024-03-04"}, on(base), seed=3)
    with pytest.raises(ConfigError, match="there is no such folder"):
        text_adapter.train_adapter(replace(job, settings=on(tmp_path / "gone")))
    answer = text_adapter.train_adapter(job)
    assert answer == {"pairs": len(pairs.left), "epochs": trained[0].epochs}
    assert sorted(file.name for file in folder.iterdir()) == [ADAPTER, text_adapter.WEIGHTS, "manifest.json"]
    assert model_folder.read_manifest(str(folder))["data"] == {"as_of": "2024-03-04", "pairs": len(pairs.left)}
    np.testing.assert_array_equal(text.load(str(folder), device="cpu").encode(LEFT),
                                  text.load(trained[2], device="cpu").encode(LEFT))  # fmt: skip
