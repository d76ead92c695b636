"""Text to vectors with any transformers encoder.

Shapes: B texts of a batch, L tokens, D numbers of a vector; hidden_BLD, mask_BL.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from recspark.encoders.packed import pack
from recspark.encoders.weights import PACKAGED, locate
from recspark.errors import ConfigError

TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 65536}  # with padding; larger batches leave a CPU's caches and lose a fifth
TEXTS_PER_CHUNK = 2048  # tokenised at once; fewer make more batches that are not full
MAX_TOKENS = 512  # where neither the model nor its tokenizer says

Chunk, Done = TypeVar("Chunk"), TypeVar("Done")


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
        While the model works on one chunk, a thread tokenises the next.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        filled = [row for row, text in enumerate(texts) if isinstance(text, str) and text.strip()]
        filled.sort(key=lambda row: -len(texts[row]))  # so that a chunk has texts of like length
        chunks = [filled[low : low + TEXTS_PER_CHUNK] for low in range(0, len(filled), TEXTS_PER_CHUNK)]
        given = [[texts[row] for row in rows] for rows in chunks]
        budget = TOKENS_PER_BATCH[torch.device(self.device).type]
        for rows, tokens in zip(chunks, one_ahead(self._tokenise, given), strict=True):
            vectors[rows], budget = self._encode_tokens(tokens, budget)
        return vectors

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        """Token ids of every text, cut to `max_tokens`; empty where only the model's special tokens would stand."""
        given = [text.lower() for text in texts] if self.recipe.lower else texts
        found = self.tokenizer(given, truncation=True, max_length=self.max_tokens, return_attention_mask=False)
        special = self.tokenizer.num_special_tokens_to_add()
        return [ids if len(ids) > special else [] for ids in found["input_ids"]]

    def _encode_tokens(self, tokens: list[list[int]], budget: int) -> tuple[np.ndarray, int]:
        """(n, dim), and the budget of padded tokens a batch that was left: a GPU without memory for one halves it.

        Raises torch.OutOfMemoryError where a single text is too much.
        """
        vectors = np.zeros((len(tokens), self.dim), dtype=np.float32)
        lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
        todo = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]  # longest first, empty ones left out
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
            torch.cuda.empty_cache()  # outside the except, whose traceback holds the batch
        return vectors, budget

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
    max_tokens = recipe.max_tokens or _max_tokens(tokenizer, model)
    return TextEncoder(
        version=weights.version,
        dim=model.config.hidden_size,
        device=device,
        recipe=recipe,
        max_tokens=max_tokens,
        tokenizer=tokenizer,
        model=pack(model) if torch.device(device).type == "cpu" else model.to(device),
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


def one_ahead(work: Callable[[Chunk], Done], chunks: Sequence[Chunk]) -> Iterator[Done]:
    """work(chunk) of every chunk in order; a thread does the next one while the caller uses this one."""
    if len(chunks) < 2:  # nothing to be ahead of
        yield from map(work, chunks)
        return
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(work, chunks[0])
        for chunk in chunks[1:]:
            done, coming = coming, thread.submit(work, chunk)
            yield done.result()
        yield coming.result()
