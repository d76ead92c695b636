"""Fine-tune a text encoder on behaviour: items that the same users interacted with soon after each other get similar
vectors.

The loss is InfoNCE over a batch of pairs, both ways: find an item's partner among all items of the batch. An item is no
negative of another if their texts are equal or they are *mates*: texts that are a pair of any user. Only LoRA matrices
are trained, by peft: low-rank ones beside every linear layer, a hundredth of the model. The result is validated on the
pairs of held-out users, and the frozen model is kept if the adapter is not better.

One process, on its GPU if it has one: on several, each would see the negatives of its own part only. Needs no Spark.

Shapes: P pairs, N texts, U different texts of a batch of B pairs, C candidates, D numbers of a vector.
Reference: van den Oord, Li & Vinyals 2018 (InfoNCE); Hu et al. 2021 (LoRA).
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from recspark import metrics, model_folder
from recspark.arrays import Array
from recspark.config.content import TextAdapter
from recspark.encoders import text
from recspark.encoders.load import need
from recspark.encoders.text import TextEncoder
from recspark.encoders.weights import ADAPTER, locate
from recspark.errors import TrainingError

log = logging.getLogger("recspark.text_adapter")

PAIRS = ("user", "left", "right")  # columns of the pairs' files: a number for the user, and two texts
PAIRS_FOLDER = "pairs"  # inside the adapter's folder, until it is trained
WEIGHTS = "adapter_model.safetensors"  # as peft names it
VALID_SHARE = 0.2  # of the users: fewer could not tell a gain from chance
CANDIDATES = 2000  # texts among which validation looks for the partner
VALID_PAIRS = 5000  # at most
REPLICATES = 1000
WARM_UP = 0.1  # of the steps
MAX_GRADIENT_NORM = 1.0
LOG_SECONDS = 10.0
IGNORED = r".*pooler.*"  # no vector passes through it


@dataclass(frozen=True)
class Pairs:
    """`texts`: N different ones; `left`, `right` (P,) index them; `user` (P,) int64: whose pair it is."""

    texts: list[str]
    left: Array
    right: Array
    user: Array

    def take(self, chosen: Array) -> "Pairs":
        return replace(self, left=self.left[chosen], right=self.right[chosen], user=self.user[chosen])


@dataclass(frozen=True)
class Trained:
    """`weights`: the adapter's, by peft's names; `config`: peft's; `epochs`: how many the weights have seen, 0 if the
    frozen model is as good. `history`: an entry an epoch from 0 on; `gain` is over the frozen MRR, with its bounds."""

    weights: dict[str, Array]
    config: dict[str, Any]
    epochs: int
    history: list[dict[str, float]]


def pairs_of(users: Sequence[int], left: Sequence[str], right: Sequence[str]) -> Pairs:
    """Distinct pairs in an order that does not depend on the files; pairs with the same text on both sides left out."""
    rows = sorted({row for row in zip(users, left, right, strict=True) if row[1] != row[2]})
    texts, numbers = np.unique([side for row in rows for side in row[1:]], return_inverse=True)
    left_P, right_P = numbers.reshape(-1, 2).T
    return Pairs(texts.tolist(), left_P, right_P, np.array([row[0] for row in rows], dtype=np.int64))


def read_pairs(folder: str) -> Pairs:
    """Pairs from Parquet files with the columns of PAIRS."""
    fs, root = fsspec.core.url_to_fs(folder)
    names = sorted(name for name in fs.ls(root, detail=False) if name.endswith(".parquet"))
    parts = [pq.read_table(name, filesystem=fs, columns=list(PAIRS)) for name in names]
    return pairs_of(*([value for part in parts for value in part.column(name).to_pylist()] for name in PAIRS))


# -- training ----------------------------------------------------------------------------------------------------------


def train(
    encoder: TextEncoder, pairs: Pairs, settings: TextAdapter, seed: int, report: Callable[[str], None] = log.info
) -> Trained:
    """Train an adapter of an encoder that was loaded with `packed=False`; afterwards that encoder has it.

    The epoch with the best MRR on the validation users' pairs is kept, if the lower 95 % bound of its gain over the
    frozen model is above zero; otherwise the frozen model.

    Raises: TrainingError when the loss is not finite.
    """
    need(encoder.version, "peft", "lora")
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

    encoder = replace(encoder, max_tokens=min(encoder.max_tokens, settings.max_tokens))
    encoder.dense.requires_grad_(False)
    lora = LoraConfig(
        r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear", exclude_modules=IGNORED
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = get_peft_model(encoder.model, lora)

    def weights() -> dict[str, Array]:
        return {key: tensor.detach().cpu().numpy().copy() for key, tensor in get_peft_model_state_dict(model).items()}

    rng = np.random.default_rng(seed)
    tokens = encoder.tokenise(pairs.texts) if pairs.texts else []
    known = np.array([bool(ids) for ids in tokens], dtype=bool)
    pairs = pairs.take(known[pairs.left] & known[pairs.right]) if len(known) else pairs
    training, valid, candidates_C = split(pairs, rng)
    frozen_P = reciprocal_ranks(encoder, valid, candidates_C)
    best, best_epoch, best_gain = weights(), 0, 0.0
    history = [{"epoch": 0, "mrr": _mean(frozen_P)}]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)
    batches = math.ceil(len(training.left) / settings.batch_size)
    for epoch in range(1, settings.max_epochs + 1 if batches and len(frozen_P) else 1):
        began = time.monotonic()
        loss = _epoch(
            encoder, tokens, training, settings, optimizer, epoch, rng.permutation(len(training.left)), report
        )
        now_P = reciprocal_ranks(encoder, valid, candidates_C)
        gain, lower, upper = _gain(now_P - frozen_P, valid.user)
        history.append(
            {"epoch": epoch, "loss": loss, "mrr": _mean(now_P), "gain": gain, "lower": lower, "upper": upper}
        )
        report(
            f"text_adapter: epoch {epoch}/{settings.max_epochs} loss {loss:.4f} MRR {_mean(now_P):.4f}, frozen "
            f"{_mean(frozen_P):.4f}, gain {gain:+.4f} [{lower:+.4f}, {upper:+.4f}] ({time.monotonic() - began:.1f} s)"
        )
        if lower > 0 and gain > best_gain:
            best, best_epoch, best_gain = weights(), epoch, gain
    set_peft_model_state_dict(model, {key: torch.from_numpy(array) for key, array in best.items()})
    model.eval()
    return Trained(best, model.peft_config["default"].to_dict(), best_epoch, history)


def _epoch(
    encoder: TextEncoder,
    tokens: list[list[int]],
    pairs: Pairs,
    settings: TextAdapter,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    order: Array,
    report: Callable[[str], None],
) -> float:
    """One pass over the pairs; returns the mean loss. Without dropout: ranks are low, and the best epoch is kept."""
    known = mates(pairs)
    steps, total, shown = math.ceil(len(order) / settings.batch_size), 0.0, time.monotonic()
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(steps):
        rows = order[step * settings.batch_size : (step + 1) * settings.batch_size]
        used, numbers = np.unique([pairs.left[rows], pairs.right[rows]], return_inverse=True)
        left_B, right_B = torch.from_numpy(numbers.reshape(2, -1)).to(encoder.device)
        mates_UU = torch.from_numpy(are_mates(known, used, len(pairs.texts))).to(encoder.device)
        vectors_UD = encoder.vectors([tokens[i] for i in used])
        loss = info_nce(vectors_UD, left_B, right_B, mates_UU, settings.temperature)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = float(torch.nn.utils.clip_grad_norm_(learning, MAX_GRADIENT_NORM))
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingError(
                f"text_adapter: loss is {value:g}, gradient norm {norm:g} in epoch {epoch}, step {step + 1} (learning "
                f"rate {settings.learning_rate:g}); lower text_adapter.learning_rate"
            )
        share = (epoch - 1 + (step + 1) / steps) / settings.max_epochs
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(share / WARM_UP, (1 - share) / (1 - WARM_UP))
        optimizer.step()
        total += value * len(rows)
        if time.monotonic() - shown > LOG_SECONDS:
            report(f"text_adapter: epoch {epoch}/{settings.max_epochs} step {step + 1}/{steps} loss {value:.4f}")
            shown = time.monotonic()
    return total / max(len(order), 1)


def info_nce(vectors_UD: Tensor, left_B: Tensor, right_B: Tensor, mates_UU: Tensor, temperature: float) -> Tensor:
    """Mean over both ways of -log p(partner), p among the U texts without the anchor and its other mates.

    `left_B`, `right_B` index the U texts; `mates_UU`: bool, which of them are a pair.
    """
    anchor, partner = torch.cat([left_B, right_B]), torch.cat([right_B, left_B])
    logits = (vectors_UD @ vectors_UD.T / temperature)[anchor]
    hidden = mates_UU[anchor].scatter(1, partner[:, None], False).scatter(1, anchor[:, None], True)
    return cross_entropy(logits.masked_fill(hidden, -torch.inf), partner)


def mates(pairs: Pairs) -> Array:
    """All pairs both ways, each as the number left * N + right, sorted."""
    left, right = np.concatenate([pairs.left, pairs.right]), np.concatenate([pairs.right, pairs.left])
    return np.asarray(np.unique(left * len(pairs.texts) + right))


def are_mates(known: Array, used: Array, num_texts: int) -> Array:
    """bool (U, U): which of the `used` texts are `known` (see `mates`) as pairs."""
    return np.asarray(np.isin(used[:, None] * num_texts + used, known))


# -- validation --------------------------------------------------------------------------------------------------------


def split(pairs: Pairs, rng: np.random.Generator) -> tuple[Pairs, Pairs, Array]:
    """(training pairs, validation pairs of a fifth of the users, (C,) texts among which a partner is looked for).

    At most CANDIDATES texts and VALID_PAIRS validation pairs; pairs of other texts are left out.
    """
    users = np.unique(pairs.user)
    held = np.isin(pairs.user, rng.permutation(users)[: math.ceil(len(users) * VALID_SHARE)])
    valid = pairs.take(held)
    own = rng.permutation(np.unique([valid.left, valid.right]))[:CANDIDATES]
    others = rng.permutation(np.setdiff1d(np.unique([pairs.left, pairs.right]), own))
    valid = valid.take(np.isin(valid.left, own) & np.isin(valid.right, own))
    valid = valid.take(np.sort(rng.permutation(len(valid.left))[:VALID_PAIRS]))
    return pairs.take(~held), valid, np.concatenate([own, others[: CANDIDATES - len(own)]])


def reciprocal_ranks(encoder: TextEncoder, pairs: Pairs, candidates_C: Array) -> Array:
    """(P,) 1 / rank of `right` among the candidates but `left`, by similarity to `left`; ties share a rank."""
    vectors_CD = encoder.encode([pairs.texts[i] for i in candidates_C])
    place = np.zeros(len(pairs.texts), dtype=np.int64)
    place[candidates_C] = np.arange(len(candidates_C))
    left, right = place[pairs.left], place[pairs.right]
    scores_PC = vectors_CD[left] @ vectors_CD.T
    rows = np.arange(len(left))
    own = scores_PC[rows, right][:, None]
    scores_PC[rows, left] = -np.inf
    rank_P = 1.0 + (scores_PC > own).sum(axis=1) + ((scores_PC == own).sum(axis=1) - 1) / 2
    return np.asarray(1.0 / rank_P)


def _gain(gain_P: Array, user_P: Array) -> tuple[float, float, float]:
    """(mean, lower, upper): a 95 % bootstrap over users."""
    weights = metrics.poisson_weights(metrics.hash_users(user_P, 0), REPLICATES)
    return float(gain_P.mean()), *metrics.interval(gain_P @ weights / np.maximum(weights.sum(axis=0), 1))


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else 0.0


# -- what a launch runs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AdapterJob:
    """`folder`: the adapter's, with its pairs inside; `data`: where the pairs come from, for the manifest."""

    folder: str
    data: dict[str, Any]
    settings: TextAdapter
    seed: int
    use_gpu: bool = False


def train_adapter(job: AdapterJob) -> dict[str, Any]:
    """Train and save the adapter of a job.

    Returns: {"pairs": their number, "epochs": see `Trained`}.
    """
    settings = job.settings
    pairs = read_pairs(f"{job.folder}/{PAIRS_FOLDER}")
    encoder = text.load(settings.encoder, settings.revision, None if job.use_gpu else "cpu", packed=False)
    trained = train(encoder, pairs, settings, job.seed)
    save(job.folder, trained, settings, job.data | {"pairs": len(pairs.left)}, job.seed)
    model_folder.remove(f"{job.folder}/{PAIRS_FOLDER}")
    return {"pairs": len(pairs.left), "epochs": trained.epochs}


def save(folder: str, trained: Trained, settings: TextAdapter, data: Mapping[str, Any], seed: int) -> None:
    """Write a folder that `encoders.text.load` and peft open; `data` says where the pairs come from."""
    base, revision = settings.encoder, settings.revision
    config = {name: sorted(value) if isinstance(value, set) else value for name, value in trained.config.items()}
    config |= {"base_model_name_or_path": base, "revision": revision, "inference_mode": True}
    manifest = {
        "base": {"name": base, "revision": revision, "version": locate(base, revision).version},
        "data": dict(data),
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "epochs": trained.epochs,
        "history": trained.history,
    }
    described = json.dumps(config, sort_keys=True, indent=1, default=str)
    model_folder.save(folder, manifest, weights=trained.weights, texts={ADAPTER: described}, weights_file=WEIGHTS)
