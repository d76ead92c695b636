"""Text to vectors with any transformers encoder.

Shapes: B texts of a batch, L tokens, D numbers of a vector; hidden_BLD, mask_BL.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recspark.encoders.weights import PACKAGED, locate
from recspark.errors import ConfigError

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}  # with padding; larger batches leave a CPU's caches and lose a fifth
MAX_TOKENS = 512  # where neither the model nor its tokenizer says


def mean(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens that are not padding, (B, D)."""
    weight_BL1 = mask_BL.unsqueeze(-1).to(hidden_BLD.dtype)
    return (hidden_BLD * weight_BL1).sum(dim=1) / weight_BL1.sum(dim=1)


def cls(hidden_BLD: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
    """The first token's state, (B, D)."""
    return hidden_BLD[:, 0]


# By the names that sentence-transformers uses. Padding is always on the right.
POOLINGS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {"mean": mean, "cls": cls}


@dataclass(frozen=True)
class Recipe:
    """What a model folder says about the way from token states to a vector."""

    folder: Path  # of the transformer itself
    pooling: str = "mean"
    normalize: bool = True
    max_tokens: int | None = None
    lower: bool = False


@dataclass(frozen=True)
class TextEncoder:
    """A loaded model. `version` names the weights' content, `dim` is the length of a vector."""

    version: str
    dim: int
    device: str
    recipe: Recipe
    max_tokens: int
    tokenizer: Any
    model: torch.nn.Module

    @torch.inference_mode()
    def encode(self, texts: Sequence[str | None]) -> np.ndarray:
        """float32 (n, dim) in the order of `texts`; a text without content (null, blank, no token) is a row of zeros.

        Batches hold texts of like length up to a number of tokens: order and batch change a vector by rounding only.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        tokens = self._tokenise(texts)
        budget = TOKENS_PER_BATCH[torch.device(self.device).type]
        for rows in token_batches(np.array([len(ids) for ids in tokens], dtype=np.int64), budget):
            vectors[rows] = self._forward([tokens[row] for row in rows])
        return vectors

    def _tokenise(self, texts: Sequence[str | None]) -> list[list[int]]:
        """Token ids of every text, cut to `max_tokens`; empty where only the model's special tokens would stand."""
        tokens: list[list[int]] = [[] for _ in texts]
        rows = [row for row, text in enumerate(texts) if isinstance(text, str) and text.strip()]
        if not rows:
            return tokens
        given = [texts[row].lower() if self.recipe.lower else texts[row] for row in rows]
        found = self.tokenizer(given, truncation=True, max_length=self.max_tokens, return_attention_mask=False)
        special = self.tokenizer.num_special_tokens_to_add()
        for row, ids in zip(rows, found["input_ids"], strict=True):
            if len(ids) > special:
                tokens[row] = ids
        return tokens

    def _forward(self, tokens: list[list[int]]) -> np.ndarray:
        longest = max(len(ids) for ids in tokens)
        ids_BL = np.full((len(tokens), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        mask_BL = np.zeros_like(ids_BL)
        for row, ids in enumerate(tokens):
            ids_BL[row, : len(ids)] = ids
            mask_BL[row, : len(ids)] = 1
        mask = torch.from_numpy(mask_BL).to(self.device)
        hidden = self.model(input_ids=torch.from_numpy(ids_BL).to(self.device), attention_mask=mask).last_hidden_state
        vectors_BD = POOLINGS[self.recipe.pooling](hidden, mask)
        if self.recipe.normalize:
            vectors_BD = torch.nn.functional.normalize(vectors_BD, dim=1)
        return vectors_BD.cpu().numpy()


def load(name: str = PACKAGED, revision: str | None = None, device: str | None = None) -> TextEncoder:
    """Load the model `name` (see `weights.locate`) in float32 on `device`, by default the GPU where there is one.

    sentence-transformers folders say how to pool in modules.json; others get the masked mean of length 1.
    Raises ConfigError where the model is missing, incomplete or pools in a way that is not known here.
    """
    weights = locate(name, revision)
    recipe = read_recipe(weights.path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer, model = _load_transformer(name, recipe.folder)
    return TextEncoder(
        version=weights.version,
        dim=model.config.hidden_size,
        device=device,
        recipe=recipe,
        max_tokens=recipe.max_tokens or _max_tokens(tokenizer, model),
        tokenizer=tokenizer,
        model=model.to(device),
    )


def _load_transformer(name: str, folder: Path) -> tuple[Any, torch.nn.Module]:
    from transformers import AutoModel, AutoTokenizer, logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, info = AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"encoder {name!r}: {folder} cannot be loaded ({why}); expected a folder saved by save_pretrained with "
            "config.json, model.safetensors and the tokenizer's files"
        ) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))  # a head we do not use
    if missing:
        raise ConfigError(
            f"encoder {name!r}: model.safetensors in {folder} lacks {len(missing)} weights that config.json asks for "
            f"(first: {missing[0]}), so its vectors would be random; take weights and config from one model"
        )
    return tokenizer, model.float().eval()


def read_recipe(path: Path) -> Recipe:
    """What a folder's modules.json and pooling config (sentence-transformers) say; defaults where it has none."""
    if not (path / "modules.json").exists():
        return Recipe(path)
    modules = {entry["type"].rsplit(".", 1)[-1]: path / entry["path"] for entry in _read_json(path / "modules.json")}
    unknown = sorted(set(modules) - {"Transformer", "Pooling", "Normalize"})
    if unknown or "Transformer" not in modules:
        raise ConfigError(
            f"encoder {path}: modules.json lists {sorted(modules)}, expected Transformer, Pooling and Normalize; "
            "choose a model made of these"
        )
    folder = modules["Transformer"]
    settings = _read_json(folder / "sentence_bert_config.json")
    return Recipe(
        folder=folder,
        pooling=_pooling(path, _read_json(modules["Pooling"] / "config.json") if "Pooling" in modules else {}),
        normalize="Normalize" in modules,
        max_tokens=settings.get("max_seq_length"),
        lower=bool(settings.get("do_lower_case")),
    )


def _pooling(path: Path, config: dict[str, Any]) -> str:
    """The one pooling of a config, in the older form (flags) or the newer (`pooling_mode`)."""
    flags = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    found = config.get("pooling_mode") or [
        flags.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on
    ]
    modes = [found] if isinstance(found, str) else list(found or ["mean"])
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise ConfigError(f"encoder {path}: pools by {modes}, expected one of {sorted(POOLINGS)}; choose another model")
    return modes[0]


def _max_tokens(tokenizer: Any, model: torch.nn.Module) -> int:
    """The most tokens of a text: what tokenizer and position table both allow (RoBERTa keeps its first rows unused)."""
    positions = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(table, "padding_idx", None)
    return min(positions - (0 if padding is None else padding + 1), tokenizer.model_max_length)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def token_batches(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Row numbers, longest text first, cut so that rows x longest <= budget (one row at least); empty texts in none."""
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    while len(order):
        size = max(1, budget // int(lengths[order[0]]))
        yield order[:size]
        order = order[size:]
