"""Text to vectors with any transformers encoder.

Shapes: B texts of a batch, L tokens, D dimensions; hidden_BLD, mask_BL.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recspark.arrays import Array
from recspark.encoders.batches import NOT_UTF8, Encoded, drop_not_finite, prefetch, reason
from recspark.encoders.dense import load_dense
from recspark.encoders.load import load_transformer, merge_adapter, place
from recspark.encoders.weights import PACKAGED, locate
from recspark.errors import ConfigError

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}  # with padding; larger ones exceed a CPU's caches: a fifth slower
TEXTS_PER_CHUNK = 2048  # tokenised at once; with fewer, more batches are not full
MODULES = ("Transformer", "Pooling", "Dense", "Normalize")  # of sentence-transformers, in the only supported order
MAX_TOKENS = 512  # where neither the model nor its tokenizer has a limit


def mean(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are not padding, (B, D)."""
    weight_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLD.dtype)
    return (hidden_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1)


def cls(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """The first token's state, (B, D)."""
    return hidden_BLD[:, 0]


def mean_sqrt_len(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Sum over the tokens that are not padding, divided by the square root of their number, (B, D)."""
    return mean(hidden_BLD, mask_BL) * mask_BL.sum(dim=1, keepdim=True).sqrt()


def weighted_mean(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Weighted mean: weight 1 for the first token, 2 for the second, and so on, (B, D)."""
    return mean(hidden_BLD, mask_BL * torch.arange(1, mask_BL.shape[1] + 1, device=mask_BL.device))


def maximum(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Maximum of each dimension over the tokens that are not padding, (B, D)."""
    return hidden_BLD.masked_fill(mask_BL.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)


def last_token(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """The state of the last token that is not padding, (B, D): in a decoder the only one that depends on all tokens."""
    return hidden_BLD[torch.arange(len(mask_BL), device=mask_BL.device), mask_BL.sum(dim=1) - 1]


# By the names of sentence-transformers. Padding is always on the right.
POOLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": mean,
    "mean_sqrt_len_tokens": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "max": maximum,
    "cls": cls,
    "lasttoken": last_token,
}


@dataclass(frozen=True)
class Recipe:
    """How a model folder makes a vector of token states."""

    folder: Path  # of the transformer itself
    pooling: str | None = None  # None: the usual one of its type
    normalize: bool = True
    max_tokens: int | None = None
    lower: bool = False
    dense: tuple[Path, ...] = ()  # folders of layers after the pooling


@dataclass(frozen=True)
class TextEncoder:
    """A loaded model. `version` names the weights' content, `dim` is the length of a vector."""

    version: str
    dim: int
    device: str
    recipe: Recipe
    max_tokens: int
    tokenizer: Any
    model: Any  # of transformers
    dense: torch.nn.Module

    def encode_with_reasons(self, texts: Sequence[str | bytes | None]) -> Encoded:
        """As `encode`, and a reason for every text without a vector that is not null: bytes that are not UTF-8."""
        read: list[str | None] = []
        reasons: list[str | None] = [None] * len(texts)
        for row, text in enumerate(texts):
            try:
                read.append(text.decode() if isinstance(text, bytes) else text)
            except UnicodeDecodeError:
                read.append(None)
                reasons[row] = reason("text", NOT_UTF8)
        return drop_not_finite(self.encode(read), reasons, "text")

    @torch.inference_mode()
    def encode(self, texts: Sequence[str | None]) -> Array:
        """float32 (n, dim) in the order of `texts`; a text without content (null, blank, no token) is a row of zeros.

        Batches hold texts of similar length up to a number of tokens: order and batch change a vector by rounding only.
        While the model works on one chunk, a thread tokenises the next.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        filled = [(row, text) for row, text in enumerate(texts) if isinstance(text, str) and text.strip()]
        filled.sort(key=lambda pair: -len(pair[1]))  # so that a chunk has texts of similar length
        chunks = [filled[low : low + TEXTS_PER_CHUNK] for low in range(0, len(filled), TEXTS_PER_CHUNK)]
        given = [[text for _, text in chunk] for chunk in chunks]
        budget = TOKENS_PER_BATCH[torch.device(self.device).type]
        for chunk, tokens in zip(chunks, prefetch(self.tokenise, given), strict=True):
            vectors[[row for row, _ in chunk]], budget = self._encode_tokens(tokens, budget)
        return vectors

    def tokenise(self, texts: list[str]) -> list[list[int]]:
        """Token ids of every text, cut to `max_tokens`; empty where there are only the model's special tokens."""
        stripped = [text.strip() for text in texts]  # otherwise a decoder's last token might be a blank
        given = [text.lower() for text in stripped] if self.recipe.lower else stripped
        found = self.tokenizer(given, truncation=True, max_length=self.max_tokens, return_attention_mask=False)
        special = self.tokenizer.num_special_tokens_to_add()
        return [ids if len(ids) > special else [] for ids in found["input_ids"]]

    def _encode_tokens(self, tokens: list[list[int]], budget: int) -> tuple[Array, int]:
        """Vectors (n, dim), and the new budget of padded tokens per batch: halved where a GPU's memory was too small.

        Raises: torch.OutOfMemoryError where a single text needs too much.
        """
        vectors = np.zeros((len(tokens), self.dim), dtype=np.float32)
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        todo = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]  # longest first, without empty ones
        while len(todo):
            longest = int(lengths[todo[0]])
            rows = todo[: max(1, budget // longest)]
            try:
                vectors[rows] = self._forward([tokens[row] for row in rows])
                todo = todo[len(rows) :]
                continue
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
            budget = len(rows) * longest // 2
            torch.cuda.empty_cache()  # after the except block, whose traceback holds the batch
        return vectors, budget

    def _forward(self, tokens: list[list[int]]) -> Array:
        return np.asarray(self.vectors(tokens).cpu().numpy())

    def vectors(self, tokens: list[list[int]]) -> torch.Tensor:
        """(B, dim) of one batch of token ids, none empty; with gradients where they are enabled."""
        longest = max(len(ids) for ids in tokens)
        ids_BL = np.full((len(tokens), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask_BL = np.zeros_like(ids_BL)
        for row, ids in enumerate(tokens):
            ids_BL[row, : len(ids)] = ids
            mask_BL[row, : len(ids)] = 1
        mask = torch.from_numpy(mask_BL).to(self.device)
        hidden = self.model(input_ids=torch.from_numpy(ids_BL).to(self.device), attention_mask=mask).last_hidden_state
        assert self.recipe.pooling is not None  # load() sets it
        vectors_BD: torch.Tensor = self.dense(POOLINGS[self.recipe.pooling](hidden, mask))
        if self.recipe.normalize:
            vectors_BD = torch.nn.functional.normalize(vectors_BD, dim=1)
        return vectors_BD


def load(
    name: str = PACKAGED, revision: str | None = None, device: str | None = None, packed: bool = True
) -> TextEncoder:
    """Load the model `name` (see `weights.locate`) in float32 on `device`, by default the GPU if there is one.

    Folders of sentence-transformers define the pooling in modules.json. Others get a vector of length 1: for a decoder
    (GPT-2, Llama) the last token's state, for all others the mean over tokens (for T5 of its encoder). Texts are cut
    after `max_tokens` tokens. An adapter (training/content/text_adapter.py) is added to its base's weights.
    `packed=False` leaves the layers trainable.

    Raises: ConfigError where the model is missing, incomplete, not for texts or pools in a way that is not known here.
    """
    weights = locate(name, revision)
    recipe = read_recipe((weights.base or weights).path)
    auto = _auto_class(name, recipe.folder)
    tokenizer, model = load_transformer(name, recipe.folder, "input_ids", "AutoTokenizer", auto)
    dense = torch.nn.Sequential(*(load_dense(name, folder) for folder in recipe.dense))
    pooling = recipe.pooling or _usual_pooling(model.config.model_type)
    max_tokens = recipe.max_tokens or _max_tokens(tokenizer, model)
    if weights.base is not None:
        model = merge_adapter(name, model, weights.path)
    model, device = place(model, device, packed)
    return TextEncoder(
        version=weights.version,
        dim=_width(dense) or model.config.hidden_size,
        device=device,
        recipe=replace(recipe, pooling=pooling),
        max_tokens=max_tokens,
        tokenizer=tokenizer,
        model=model,
        dense=dense.to(device),
    )


def _width(dense: torch.nn.Sequential) -> int | None:
    """Outputs of the last of the dense layers, None without any."""
    widths = [layer.out_features for layer in dense.modules() if isinstance(layer, torch.nn.Linear)]
    return widths[-1] if widths else None


def _auto_class(name: str, folder: Path) -> str:
    """The class of transformers that gives the states of a text: for models like T5 their encoder alone."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES as ENCODERS

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        return "AutoModel"  # loading it raises an error that names what is missing
    if config.is_encoder_decoder and config.model_type not in ENCODERS:
        raise ConfigError(
            f"encoder {name!r}: is of type {config.model_type!r}, an encoder with a decoder, expected an encoder, a "
            "decoder or one of the T5 family; choose another model"
        )
    return "AutoModelForTextEncoding" if config.model_type in ENCODERS else "AutoModel"


def _usual_pooling(model_type: str) -> str:
    """The last token for types that transformers has only as causal language models, else the mean."""
    from transformers.models.auto import modeling_auto as auto

    causal, masked = auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "lasttoken" if model_type in causal and model_type not in masked else "mean"


def read_recipe(path: Path) -> Recipe:
    """The recipe in a folder's modules.json and pooling config (sentence-transformers); defaults where it has none."""
    if not (path / "modules.json").exists():
        return Recipe(path)
    modules = [(entry["type"].rsplit(".", 1)[-1], path / entry["path"]) for entry in _read_json(path / "modules.json")]
    kinds, first = [kind for kind, _ in modules], dict(reversed(modules))
    in_order = [kind for known in MODULES for kind in kinds if kind == known]
    if kinds != in_order or len(first) < len(kinds) - max(0, kinds.count("Dense") - 1) or kinds[:1] != ["Transformer"]:
        raise ConfigError(
            f"encoder {path}: modules.json lists {kinds}, expected Transformer, Pooling, any number of Dense, and "
            "Normalize; choose a model made of these"
        )
    settings = _read_json(first["Transformer"] / "sentence_bert_config.json")
    return Recipe(
        folder=first["Transformer"],
        pooling=_pooling(path, _read_json(first["Pooling"] / "config.json")) if "Pooling" in first else "mean",
        normalize="Normalize" in first,
        max_tokens=settings.get("max_seq_length"),
        lower=bool(settings.get("do_lower_case")),
        dense=tuple(folder for kind, folder in modules if kind == "Dense"),
    )


def _pooling(path: Path, config: dict[str, Any]) -> str:
    """The pooling of a config, in the older form (flags) or the newer one (`pooling_mode`)."""
    flags = {
        "pooling_mode_cls_token": "cls",
        "pooling_mode_mean_tokens": "mean",
        "pooling_mode_max_tokens": "max",
        "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens": "weightedmean",
        "pooling_mode_lasttoken": "lasttoken",
    }
    found = config.get("pooling_mode") or [
        flags.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on
    ]
    modes = [found] if isinstance(found, str) else list(found or ["mean"])
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ConfigError(f"encoder {path}: pools by {modes}, expected one of {sorted(POOLINGS)}; choose another model")
    return modes[0]


def _max_tokens(tokenizer: Any, model: Any) -> int:
    """The most tokens that both tokenizer and position table allow (RoBERTa's has unused first rows)."""
    positions = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return int(min(positions - (0 if padding is None else padding + 1), tokenizer.model_max_length))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
