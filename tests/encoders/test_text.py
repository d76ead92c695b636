"""Text encoder: the packaged weights against transformers itself, and small random models for the folder rules."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, BertModel

from recspark.encoders import text
from recspark.encoders.weights import locate
from recspark.errors import ConfigError
from tests.encoders.tiny import build

TEXTS = [
    "WHITE METAL LANTERN",
    "red",
    None,
    "set of 6 glass star frosted t-light holders",
    "",
    "  \t",
    "WHITE METAL LANTERN",
]


@pytest.fixture(scope="module")
def encoder() -> text.TextEncoder:
    return text.load(device="cpu")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A plain transformers folder: BERT of width 16, positions 0..11, words of `tiny.WORDS`."""
    return build("bert", tmp_path / "tiny")


def save_recipe(folder: Path, modules: list[str], pooling: dict[str, object], settings: dict[str, object]) -> None:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "3_Dense"}
    entries = [{"type": f"sentence_transformers.models.{name}", "path": paths.get(name, name)} for name in modules]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))


def direct_states(folder: Path, sentence: str) -> np.ndarray:
    """Last hidden states (tokens, width) from transformers itself, one text, no padding."""
    with torch.inference_mode():
        inputs = AutoTokenizer.from_pretrained(folder)(sentence, return_tensors="pt")
        return AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0].numpy()


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


# -- the packaged model ------------------------------------------------------------------------------------------------


def test_same_vector_as_transformers_called_directly(encoder):
    found = encoder.encode(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), encoder.dim) == (7, 384)
    for row in (0, 1, 3):
        expected = unit(direct_states(locate("all-MiniLM-L6-v2").path, TEXTS[row]).mean(axis=0))
        assert unit(found[row]) @ expected > 0.9999
        np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_no_content_is_zeros(encoder):
    found = encoder.encode(TEXTS)
    np.testing.assert_array_equal(found.any(axis=1), [True, True, False, True, False, False, True])
    assert encoder.encode([]).shape == (0, 384)
    assert not encoder.encode([None, "\u200b"]).any()  # the second is not blank but has no token


def test_order_padding_and_batch_size_change_only_rounding(encoder, monkeypatch):
    texts = [f"{'glass ' * (i % 7)}lantern {i}" for i in range(14)]
    together = encoder.encode(texts)
    shuffled = np.random.default_rng(0).permutation(14)
    np.testing.assert_allclose(encoder.encode([texts[i] for i in shuffled]), together[shuffled], atol=1e-5)
    monkeypatch.setitem(text.TOKENS_PER_BATCH, "cpu", 1)  # every text alone, no padding
    np.testing.assert_allclose(encoder.encode(texts), together, atol=1e-5)


def test_long_text_is_cut_at_the_models_length(encoder):
    longer = encoder.encode(["lantern " * 254, "lantern " * 2000])  # 254 words + [CLS] + [SEP] = 256 tokens
    np.testing.assert_allclose(longer[0], longer[1], atol=1e-5)
    assert encoder.max_tokens == 256


# -- batches -----------------------------------------------------------------------------------------------------------


class Lengths(torch.nn.Module):
    """Every token's state is the text's length; notes (rows, longest) of the batches, refuses those above `room`."""

    def __init__(self, room: int = 1_000_000) -> None:
        super().__init__()
        self.room, self.batches = room, []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        self.batches.append(tuple(input_ids.shape))
        if input_ids.numel() > self.room:
            raise torch.OutOfMemoryError("no room")
        state_BL1 = attention_mask.sum(dim=1, keepdim=True).expand_as(input_ids).unsqueeze(-1).float()
        return SimpleNamespace(last_hidden_state=state_BL1)


def counting(encoder: text.TextEncoder, model: Lengths) -> text.TextEncoder:
    return replace(encoder, model=model, dim=1, recipe=replace(encoder.recipe, normalize=False))


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        # longest first: 9 alone (2 x 9 > 12), then 4 with 3 and 3 (3 x 4 = 12), then 2; no row of length 0
        ([3, 9, 0, 4, 3, 2], 12, [(1, 9), (3, 4), (1, 2)]),
        ([50], 12, [(1, 50)]),  # one text may exceed it
        ([0, 0], 12, []),
    ],
)
def test_batches_keep_to_the_budget(encoder, lengths, budget, expected):
    model = Lengths()
    found, left = counting(encoder, model)._encode_tokens([[5] * n for n in lengths], budget)
    assert model.batches == expected and left == budget
    np.testing.assert_array_equal(found[:, 0], lengths)


def test_a_batch_without_memory_is_halved_and_the_rest_goes_on(encoder):
    model = Lengths(room=10)
    lengths = [4, 4, 4, 4, 4, 4, 2, 2]
    found, left = counting(encoder, model)._encode_tokens([[5] * n for n in lengths], 24)
    # 6 x 4 = 24 > 10, so 12: 3 x 4 > 10, so 6: one text of 4 at a time, then three of 2
    assert model.batches == [(6, 4), (3, 4), *[(1, 4)] * 6, (2, 2)] and left == 6
    np.testing.assert_array_equal(found[:, 0], lengths)


def test_a_single_text_without_memory_is_an_error(encoder):
    with pytest.raises(torch.OutOfMemoryError):
        counting(encoder, Lengths(room=3))._encode_tokens([[5, 5], [5] * 4], 8)


def test_a_halved_budget_stays_for_the_next_chunks(encoder, monkeypatch):
    monkeypatch.setattr(text, "TEXTS_PER_CHUNK", 4)
    monkeypatch.setitem(text.TOKENS_PER_BATCH, "cpu", 12)
    model = Lengths(room=6)
    found = counting(encoder, model).encode(["mug"] * 8)  # [CLS] mug [SEP]: 3 tokens each
    assert model.batches == [(4, 3), *[(2, 3)] * 4]  # 12 > 6 once, and never again
    assert (found == 3.0).all()


# -- chunks, tokenised ahead -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 5, 100])
def test_chunks_change_only_rounding(encoder, monkeypatch, size):
    texts = [f"{'glass ' * (i % 7)}lantern {i}" for i in range(14)] + [None, " ", "\u200b"]
    together = encoder.encode(texts)
    monkeypatch.setattr(text, "TEXTS_PER_CHUNK", size)
    np.testing.assert_allclose(encoder.encode(texts), together, atol=1e-6)


# -- folders -----------------------------------------------------------------------------------------------------------


def test_plain_folder_takes_the_mean_of_length_one(tiny):
    found = text.load(str(tiny), device="cpu").encode(["red lamp", "mug"])
    expected = [unit(direct_states(tiny, sentence).mean(axis=0)) for sentence in ("red lamp", "mug")]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("activation", ["Tanh", "Identity"])
def test_dense_layers_follow_the_pooling(tiny, activation):
    save_recipe(tiny, ["Transformer", "Pooling", "Dense", "Dense", "Normalize"], {"pooling_mode": "max"}, {})
    (tiny / "3_Dense").mkdir()
    random = np.random.default_rng(0)
    matrix, bias = random.normal(size=(16, 16)).astype(np.float32), random.normal(size=16).astype(np.float32)
    save_file(
        {"linear.weight": torch.from_numpy(matrix), "linear.bias": torch.from_numpy(bias)},
        tiny / "3_Dense" / "model.safetensors",
    )
    module = "linear" if activation == "Identity" else "activation"
    (tiny / "3_Dense" / "config.json").write_text(
        json.dumps({"activation_function": f"torch.nn.modules.{module}.{activation}"})
    )
    encoder = text.load(str(tiny), device="cpu")
    vector = direct_states(tiny, "red lamp").max(axis=0)
    for _ in range(2):
        vector = matrix @ vector + bias
        vector = np.tanh(vector) if activation == "Tanh" else vector
    np.testing.assert_allclose(encoder.encode(["red lamp", "mug"])[0], unit(vector), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ({"activation_function": "mine.Activation"}, ["linear.weight"], "the activation 'Activation', expected"),
        ({"use_residual": True}, ["linear.weight", "residual.weight"], r"the weights \['residual.weight', 'weight'\]"),
        ({}, [], "no model.safetensors"),
    ],
)
def test_dense_layers_that_are_not_understood_are_refused(tiny, config, weights, message):
    save_recipe(tiny, ["Transformer", "Pooling", "Dense"], {}, {})
    (tiny / "3_Dense").mkdir()
    (tiny / "3_Dense" / "config.json").write_text(json.dumps(config))
    if weights:
        save_file({name: torch.ones(4, 16) for name in weights}, tiny / "3_Dense" / "model.safetensors")
    with pytest.raises(ConfigError, match=message):
        text.load(str(tiny), device="cpu")


def test_length_of_a_vector_is_that_of_the_last_dense_layer(tiny):
    save_recipe(tiny, ["Transformer", "Pooling", "Dense"], {}, {})
    (tiny / "3_Dense").mkdir()
    (tiny / "3_Dense" / "config.json").write_text("{}")
    save_file({"linear.weight": torch.ones(4, 16)}, tiny / "3_Dense" / "model.safetensors")
    encoder = text.load(str(tiny), device="cpu")
    assert encoder.dim == 4 and encoder.encode(["mug", None]).shape == (2, 4)


def test_poolings_by_hand():
    hidden_BLD = torch.tensor([[[1.0, -4.0], [3.0, -2.0], [9.0, 9.0]], [[2.0, 0.0], [4.0, 6.0], [6.0, -3.0]]])
    mask_BL = torch.tensor([[1, 1, 0], [1, 1, 1]])
    expected = {
        "mean": [[(1 + 3) / 2, (-4 - 2) / 2], [(2 + 4 + 6) / 3, (0 + 6 - 3) / 3]],
        "mean_sqrt_len_tokens": [[4 / 2**0.5, -6 / 2**0.5], [12 / 3**0.5, 3 / 3**0.5]],
        "weightedmean": [[(1 + 2 * 3) / 3, (-4 - 2 * 2) / 3], [(2 + 2 * 4 + 3 * 6) / 6, (2 * 6 - 3 * 3) / 6]],
        "max": [[3, -2], [6, 6]],
        "cls": [[1, -4], [2, 0]],
        "lasttoken": [[3, -2], [6, -3]],
    }
    assert set(expected) == set(text.POOLINGS)
    for name, vectors in expected.items():
        np.testing.assert_allclose(text.POOLINGS[name](hidden_BLD, mask_BL), vectors, atol=1e-6, err_msg=name)


def test_blanks_around_a_text_are_not_its_last_token(tmp_path):
    folder = build("gpt2", tmp_path / "gpt2")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"pre_tokenizer": split}))  # a blank is a token
    encoder = text.load(str(folder), device="cpu")
    assert len(encoder.tokenizer("mug ")["input_ids"]) == 2
    found = encoder.encode(["mug", " mug  "])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}]
)
def test_folder_says_how_to_pool(tiny, pooling):
    save_recipe(tiny, ["Transformer", "Pooling"], pooling, {"max_seq_length": 4, "do_lower_case": True})
    found = text.load(str(tiny), device="cpu")
    vectors = found.encode(["RED lamp mug green", "mug"])  # cut to [CLS] red lamp [SEP]; lower case; not normalised
    np.testing.assert_allclose(vectors[0], direct_states(tiny, "red lamp")[0], atol=1e-6)
    np.testing.assert_allclose(vectors[1], direct_states(tiny, "mug")[0], atol=1e-6)


def test_position_table_limits_the_length(tiny, tmp_path):
    assert text.load(str(tiny), device="cpu").max_tokens == 12
    # RoBERTa numbers positions from padding_idx + 1 = 2 on, so 12 rows hold 10 tokens
    roberta = text.load(str(build("roberta", tmp_path / "roberta")), device="cpu")
    assert roberta.max_tokens == 10
    assert np.isfinite(roberta.encode(["red " * 50])).all()


def test_half_precision_weights_run_in_float32(tiny):
    BertModel.from_pretrained(tiny).half().save_pretrained(tiny)
    encoder = text.load(str(tiny), device="cpu")
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}


def test_blank_text_has_no_content_with_any_tokenizer(tiny):
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    (tiny / "tokenizer.json").write_text(json.dumps(tokenizer | {"pre_tokenizer": None}))  # " " becomes a token
    found = text.load(str(tiny), device="cpu")
    assert found.tokenizer(" ")["input_ids"] == [2, 1, 3]
    np.testing.assert_array_equal(found.encode([" ", "mug"]).any(axis=1), [False, True])


def test_load_does_not_touch_the_callers_progress_bars(tiny):
    from transformers import logging

    logging.enable_progress_bar()
    text.load(str(tiny), device="cpu")
    assert logging.is_progress_bar_enabled()


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_missing_weights_are_refused(tiny):
    weights = load_file(tiny / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, tiny / "model.safetensors", metadata={"format": "pt"})
    # one layer: query, key, value, attention output, its norm, intermediate, output, its norm, weight and bias each
    with pytest.raises(ConfigError, match=r"lacks 16 weights .* would be random"):
        text.load(str(tiny), device="cpu")


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        (["Transformer", "Pooling", "WordWeights"], {}, "expected Transformer, Pooling, any number of Dense"),
        (["Transformer", "Pooling", "Normalize", "Dense"], {}, r"lists .*'Normalize', 'Dense'\], expected"),
        (["Transformer", "Pooling", "Pooling"], {}, r"lists .*'Pooling', 'Pooling'\], expected"),
        (["Pooling"], {}, r"lists \['Pooling'\], expected Transformer"),
        (["Transformer", "Pooling"], {"pooling_mode_median": True}, r"pools by \['pooling_mode_median'\]"),
        (["Transformer", "Pooling"], {"pooling_mode": ["mean", "cls"]}, r"pools by \['mean', 'cls'\]"),
    ],
)
def test_unknown_recipes_are_refused(tiny, modules, pooling, message):
    save_recipe(tiny, modules, pooling, {})
    with pytest.raises(ConfigError, match=message):
        text.load(str(tiny), device="cpu")


def test_an_encoder_with_a_decoder_is_refused(tiny):
    (tiny / "config.json").write_text(json.dumps({"model_type": "bart"}))  # its last states would be the decoder's
    with pytest.raises(ConfigError, match="is of type 'bart', an encoder with a decoder"):
        text.load(str(tiny), device="cpu")


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be loaded .* expected a folder saved by save_pretrained"):
        text.load(str(tmp_path), device="cpu")


def test_version_follows_the_content(tiny, tmp_path):
    version = text.load(str(tiny), device="cpu").version
    moved = shutil.copytree(tiny, tmp_path / "elsewhere" / "tiny")
    assert locate(str(moved)).version == version
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-6}))
    assert locate(str(moved)).version != version
