"""The parts that rankers are built from: the feature encoder, dropout by row, multilayer perceptrons and cross layers.

No batch statistics anywhere: a row's score is the same alone, in any batch and in any order.

Shape suffixes: B rows, F dense features, M features that can be missing, L history length, U distinct items of
the batch (row 0 = padding), C content dimensions, D embedding dimensions, H hidden units, X encoder output;
N number features that were given, G features with texts, T texts of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recspark.arrays import Array
from recspark.models.given_encoder import GivenEncoder
from recspark.models.normaliser import Normaliser

ID_DROPOUT = 0.1  # share of training rows whose item id is hidden, so that the unknown id learns to use the content
MODALITY_DROPOUT = 0.1  # share of training batches that leave out one of several content encoders
RECENT_HALF_LIFE = 10  # an event that many places back in the history counts half
SCENARIO_DIM = 8


@dataclass(frozen=True)
class Inputs:
    """A batch as a ranker reads it. `item_B`, `history_BL`: places in `codes_U`; `codes_U`: item_idx + 1, ascending.

    In scoring, `vectors_UD` replaces codes and content, which are empty then, and the rows of a user share one history:
    `history_BL` has one row per user, and row b reads that of `user_B[b]`.
    """

    dense_BF: Tensor  # float32, NaN = unknown
    scenario_B: Tensor
    item_B: Tensor
    history_BL: Tensor  # newest first, 0 = padding
    codes_U: Tensor
    content_UC: Tensor  # float32, zeros = no content
    vectors_UD: Tensor | None = None  # from FeatureEncoder.vectors
    user_B: Tensor | None = None
    numbers_BN: Tensor | None = None  # given features: float32, NaN = unknown
    texts_BGT: Tensor | None = None  # and the codes of their texts, see given_features.numbers_and_codes

    def per_row(self, history_BX: Tensor) -> Tensor:
        """One row for each row of the batch, from one for each row of `history_BL`."""
        return history_BX if self.user_B is None else history_BX[self.user_B]

    def to(self, device: torch.device) -> "Inputs":
        tensors = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return Inputs(**{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


def look_up(dense_BF: Array, scenario_B: Array, item_B: Array, history_BL: Array, content_IC: Array) -> Inputs:
    """Look up the batch's items among its distinct ones, so that each is embedded once, and the content of those.

    `history_BL` int32, -1 = padding; `content_IC` float32, row = item_idx, may be memory-mapped; items beyond its end
    have no content. Memory: 5 bytes per item in addition to the batch.
    """
    num_codes = max(len(content_IC), int(item_B.max(initial=-1)) + 1, int(history_BL.max(initial=-1)) + 1) + 1
    present = np.zeros(num_codes, bool)
    present[0] = True
    present[item_B + 1] = True
    present[history_BL + 1] = True
    codes_U = np.flatnonzero(present)
    place = np.empty(num_codes, np.int32)
    place[codes_U] = np.arange(len(codes_U), dtype=np.int32)
    content_UC = np.zeros((len(codes_U), content_IC.shape[1]), np.float32)
    known = (codes_U > 0) & (codes_U <= len(content_IC))
    content_UC[known] = content_IC[codes_U[known] - 1]
    return Inputs(
        torch.from_numpy(np.ascontiguousarray(dense_BF, np.float32)),
        torch.from_numpy(scenario_B.astype(np.int64)),
        torch.from_numpy(place[item_B + 1].astype(np.int64)),
        torch.from_numpy(place[history_BL + 1].astype(np.int64)),
        torch.from_numpy(codes_U),
        torch.from_numpy(content_UC),
    )


@dataclass(frozen=True)
class RowNoise:
    """Random numbers for dropout that depend on the row of the batch, not on the process that computes it.

    Rank r of w has rows r, r + w ...; every rank draws for all rows of the batch and uses those of its own rows. So two
    ranks compute what one would, and a resumed training needs no generator state.
    """

    generator: torch.Generator
    rank: int
    world_size: int
    order_B: Tensor | None = None  # after the rows were sorted: the row at each place

    def keep(self, rows: int, width: int, drop: float) -> Tensor:
        """(rows, width) bool, False with probability `drop`."""
        drawn = torch.rand(rows * self.world_size, width, generator=self.generator, device=self.generator.device)
        kept = drawn[self.rank :: self.world_size] >= drop
        return kept if self.order_B is None else kept[self.order_B]

    def sorted(self, order_B: Tensor) -> "RowNoise":
        """The same noise for rows in another order."""
        return replace(self, order_B=order_B)


def dropout(x_BH: Tensor, drop: float, noise: RowNoise | None) -> Tensor:
    """Inverted dropout with `noise`, the identity without."""
    if noise is None or drop == 0:
        return x_BH
    return x_BH * noise.keep(len(x_BH), x_BH.shape[1], drop) / (1 - drop)


def id_rows(counts_I: Array, least: int, buckets: int | None) -> Array:
    """The row of the item id table for every code (item_idx + 1), int64 (I + 1,); 0 = unknown.

    `counts_I`: training rows of each item; items with fewer than `least` are unknown. The others have a row each, or
    share `buckets` rows by a hash of their number.
    Reference: Weinberger et al. 2009, Feature Hashing for Large Scale Multitask Learning.
    """
    rows_C = np.zeros(len(counts_I) + 1, np.int64)
    kept = np.flatnonzero(counts_I >= max(least, 1))
    if buckets is None:
        rows_C[kept + 1] = np.arange(len(kept)) + 1
    else:
        mixed = kept.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing: the high bits are mixed
        rows_C[kept + 1] = (mixed >> np.uint64(32)) % np.uint64(buckets) + np.uint64(1)
    return rows_C


@dataclass(frozen=True)
class Encoded:
    """A batch after the feature encoder; `x_BX` holds all of it except the single events."""

    x_BX: Tensor
    scenario_BS: Tensor
    item_BD: Tensor
    history_BD: Tensor
    vectors_UD: Tensor  # of the batch's distinct items; `Inputs.history_BL` holds places in it


class ContentFusion(nn.Module):
    """One content vector per item from those of several encoders; encoders without content for an item do not count.

    `attention`: a weighted mean, the weights computed from each encoder's vector; `gate`: each number of each encoder
    times a gate computed from all of them; `concat`: one linear layer over all of them concatenated.
    Reference: Arevalo et al. 2017, Gated Multimodal Units for Information Fusion.
    """

    def __init__(self, parts: Sequence[int], embedding_dim: int, kind: str) -> None:
        super().__init__()
        self.parts, self.kind = list(parts), kind
        self.projections = nn.ModuleList(nn.Linear(size, embedding_dim, bias=False) for size in parts)
        if kind == "attention":
            self.attention = nn.Linear(embedding_dim, 1, bias=False)
            nn.init.zeros_(self.attention.weight)  # equal weights at the start
        if kind == "gate":
            self.gate = nn.Linear(sum(parts) + len(parts), len(parts) * embedding_dim)
            nn.init.zeros_(self.gate.weight)  # all half open
            nn.init.zeros_(self.gate.bias)

    def forward(self, content_UC: Tensor, noise: RowNoise | None = None) -> Tensor:
        """(U, C) -> (U, D). An encoder's zeros are no content; zeros from all encoders give zeros. With `noise`, some
        batches leave out an encoder, as some items lack one."""
        split = [F.normalize(part, dim=1) for part in torch.split(content_UC, self.parts, dim=1)]
        present_UP = torch.stack([part.any(dim=1) for part in split], dim=1)
        if noise is not None:
            present_UP = present_UP & self._kept(noise)
            split = [part * present_U1 for part, present_U1 in zip(split, present_UP.chunk(len(split), 1), strict=True)]
        projected: list[Tensor] = [layer(part) for layer, part in zip(self.projections, split, strict=True)]
        if self.kind == "attention":
            logits_UP = torch.cat([self.attention(torch.tanh(part_UD)) for part_UD in projected], dim=1)
            weights = logits_UP.masked_fill(~present_UP, -1e9).softmax(dim=1).chunk(len(split), 1)
            return reduce(torch.add, (w_U1 * part_UD for w_U1, part_UD in zip(weights, projected, strict=True)))
        if self.kind == "gate":
            gates_UG = torch.sigmoid(self.gate(torch.cat((*split, present_UP.to(content_UC.dtype)), dim=1)))
            gates = gates_UG.chunk(len(split), dim=1)
            return reduce(torch.add, (gate_UD * part_UD for gate_UD, part_UD in zip(gates, projected, strict=True)))
        return reduce(torch.add, projected)  # a linear layer over the concatenation is the sum of one layer per part

    def _kept(self, noise: RowNoise) -> Tensor:
        """(P,) bool: the encoders that this batch uses, the same on every rank; all if none would be left."""
        drawn = torch.rand(len(self.parts), generator=noise.generator, device=noise.generator.device)
        kept_P = drawn >= MODALITY_DROPOUT
        return kept_P | ~kept_P.any()


class FeatureEncoder(nn.Module):
    """Dense features, scenario, item (id + content) and the user's history -> one vector per row.

    Items with few or no training rows share the row of the unknown id (see `id_rows`); scenarios above the training
    maximum share row 0, the group of small scenarios. The history is a recency-weighted mean of the same item vectors,
    and is also multiplied with the candidate's.
    """

    row_C: Tensor

    def __init__(
        self,
        num_features: int,
        num_missing: int,
        num_items: int,
        num_scenarios: int,
        content_dim: int,
        embedding_dim: int,
        num_ids: int | None = None,
        content_parts: Sequence[int] = (),
        fusion: str = "attention",
        given: GivenEncoder | None = None,
    ) -> None:
        super().__init__()
        self.normaliser = Normaliser(num_features, num_missing)
        self.item_id = nn.Embedding(num_ids or num_items + 1, embedding_dim)  # row 0 = unknown
        # the row of every code (item_idx + 1): one per item unless there are fewer, see fit_ids()
        self.register_buffer("row_C", torch.arange(num_items + 1) % self.item_id.num_embeddings)
        several = len(content_parts) > 1
        self.content = (
            ContentFusion(content_parts, embedding_dim, fusion)
            if several
            else nn.Linear(content_dim, embedding_dim, bias=False)
        )
        self.scenario = nn.Embedding(num_scenarios, SCENARIO_DIM)
        nn.init.normal_(self.item_id.weight, std=0.05)
        nn.init.normal_(self.scenario.weight, std=0.05)
        self.given = given
        self.dim = num_features + num_missing + SCENARIO_DIM + 3 * embedding_dim + 1 + (given.dim if given else 0)

    def fit_ids(self, rows_C: Array) -> None:
        """Set the row of every code, see `id_rows`."""
        self.row_C.copy_(torch.from_numpy(rows_C))

    def forward(self, x: Inputs, noise: RowNoise | None = None) -> Encoded:
        num_scenarios = self.scenario.num_embeddings
        if x.vectors_UD is None:
            id_UD, content_UD = self._parts(x.codes_U, x.content_UC, noise)
            vectors_UD = id_UD + content_UD
        else:
            vectors_UD = x.vectors_UD
        item_BD = F.embedding(x.item_B, vectors_UD)
        if noise is not None:
            kept_B1 = noise.keep(len(x.item_B), 1, ID_DROPOUT)
            item_BD = torch.where(kept_B1, item_BD, self.item_id.weight[0] + F.embedding(x.item_B, content_UD))
        history_BD, any_B1 = (x.per_row(part) for part in self._history(x.history_BL, vectors_UD))
        scenario_BS = self.scenario(torch.where(x.scenario_B < num_scenarios, x.scenario_B, 0))
        dense_BF = self.normaliser(x.dense_BF)
        parts = [dense_BF, scenario_BS, item_BD, history_BD, item_BD * history_BD, any_B1]
        if self.given is not None:
            assert x.numbers_BN is not None and x.texts_BGT is not None
            parts.append(self.given(x.numbers_BN, x.texts_BGT))
        x_BX = torch.cat(parts, dim=1)
        return Encoded(x_BX, scenario_BS, item_BD, history_BD, vectors_UD)

    def vectors(self, codes_U: Tensor, content_UC: Tensor) -> Tensor:
        """The items' vectors (U, D), id and content added: the rest of the network sees nothing else of an item."""
        id_UD, content_UD = self._parts(codes_U, content_UC)
        return id_UD + content_UD

    def _parts(self, codes_U: Tensor, content_UC: Tensor, noise: RowNoise | None = None) -> tuple[Tensor, Tensor]:
        id_UD = self.item_id(self.row_C[torch.where(codes_U < len(self.row_C), codes_U, 0)])
        several = isinstance(self.content, ContentFusion)
        return id_UD, self.content(content_UC, noise) if several else self.content(content_UC)

    @staticmethod
    def _history(history_BL: Tensor, vectors_UD: Tensor) -> tuple[Tensor, Tensor]:
        """Recency-weighted mean of the history's item vectors, zeros without events; and whether there are any."""
        places_L = torch.arange(history_BL.shape[1], device=history_BL.device, dtype=vectors_UD.dtype)
        weights_BL = torch.exp2(-places_L / RECENT_HALF_LIFE) * (history_BL > 0)
        total_B1 = weights_BL.sum(dim=1, keepdim=True)
        weights_BL = weights_BL / total_B1.clamp_min(1e-6)
        pooled_BD = F.embedding_bag(history_BL, vectors_UD, per_sample_weights=weights_BL, mode="sum")
        return pooled_BD, (total_B1 > 0).to(vectors_UD.dtype)


class Mlp(nn.Module):
    """Linear, LayerNorm, ReLU and dropout for each of `sizes`."""

    def __init__(self, num_inputs: int, sizes: Sequence[int], drop: float) -> None:
        super().__init__()
        self.drop = drop
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip([num_inputs, *sizes], sizes, strict=False))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in sizes)

    def forward(self, x_BX: Tensor, noise: RowNoise | None = None) -> Tensor:
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x_BX = dropout(torch.relu(norm(linear(x_BX))), self.drop, noise)
        return x_BX


class Cross(nn.Module):
    """Cross layers of DCN-v2, full rank: x <- x_0 * (W x + b) + x, so layer l adds products of l + 1 inputs.

    Reference: Wang et al. 2021, DCN V2: Improved Deep & Cross Network.
    """

    def __init__(self, num_inputs: int, num_layers: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(num_inputs, num_inputs) for _ in range(num_layers))

    def forward(self, x_BX: Tensor) -> Tensor:
        first_BX = x_BX
        for linear in self.linears:
            x_BX = torch.addcmul(x_BX, first_BX, linear(x_BX))
        return x_BX
