"""Text encoder: the packaged weights against transformers itself, and small random models for the folder rules."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from recspark.encoders import text
from recspark.encoders.weights import locate
from recspark.errors import ConfigError

TEXTS = [
    "WHITE METAL LANTERN",
    "red",
    None,
    "set of 6 glass star frosted t-light holders",
    "",
    "  \t",
    "WHITE METAL LANTERN",
]
WORDS = ["red", "green", "lamp", "mug", "Red"]


@pytest.fixture(scope="module")
def encoder() -> text.TextEncoder:
    return text.load(device="cpu")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A plain transformers folder: BERT of width 16, positions 0..11, words of `WORDS`."""
    return save_tiny(tmp_path / "tiny", BertModel(BertConfig(**SMALL)))


SMALL = {
    "vocab_size": 9,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 12,
}


def save_tiny(folder: Path, model: torch.nn.Module) -> Path:
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def save_recipe(folder: Path, modules: list[str], pooling: dict[str, object], settings: dict[str, object]) -> None:
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
    entries = [{"type": f"sentence_transformers.models.{name}", "path": paths[name]} for name in modules]
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


def test_batches_keep_to_the_budget():
    # longest first: 9 alone (2 x 9 > 12), then 4 with 3 and 3 (3 x 4 = 12), then 2; rows of length 0 in none
    batches = [rows.tolist() for rows in text.token_batches(np.array([3, 9, 0, 4, 3, 2]), 12)]
    assert batches == [[1], [3, 0, 4], [5]]
    assert [r.tolist() for r in text.token_batches(np.array([50]), 12)] == [[0]]  # one text may exceed it
    assert list(text.token_batches(np.array([0, 0]), 12)) == []


# -- folders -----------------------------------------------------------------------------------------------------------


def test_plain_folder_takes_the_mean_of_length_one(tiny):
    found = text.load(str(tiny), device="cpu").encode(["red lamp", "mug"])
    expected = [unit(direct_states(tiny, sentence).mean(axis=0)) for sentence in ("red lamp", "mug")]
    np.testing.assert_allclose(found, expected, atol=1e-6)


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
    config = RobertaConfig(**SMALL, pad_token_id=1, bos_token_id=2, eos_token_id=3)
    roberta = text.load(str(save_tiny(tmp_path / "roberta", RobertaModel(config))), device="cpu")
    assert roberta.max_tokens == 10
    assert np.isfinite(roberta.encode(["red " * 50])).all()


def test_half_precision_weights_run_in_float32(tiny):
    BertModel.from_pretrained(tiny).half().save_pretrained(tiny)
    encoder = text.load(str(tiny), device="cpu")
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}


def test_blank_text_has_no_content_whatever_the_tokenizer_makes_of_it(tiny):
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
        (["Transformer", "Pooling", "Dense"], {}, "expected Transformer, Pooling and Normalize"),
        (["Pooling"], {}, "expected Transformer, Pooling and Normalize"),
        (["Transformer", "Pooling"], {"pooling_mode_max_tokens": True}, r"pools by \['pooling_mode_max_tokens'\]"),
        (["Transformer", "Pooling"], {"pooling_mode": ["mean", "cls"]}, r"pools by \['mean', 'cls'\]"),
    ],
)
def test_unknown_recipes_are_refused(tiny, modules, pooling, message):
    save_recipe(tiny, modules, pooling, {})
    with pytest.raises(ConfigError, match=message):
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
