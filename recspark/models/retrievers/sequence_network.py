"""The network of `sequence`: a causal transformer over a user's events, and vectors of items.

An item's vector is its id embedding plus its projected content, so that items without events are scored by content. The
question, which scenario and how long after the last event, joins the state of the last event. An adapter a scenario
(Houlsby et al. 2019, Parameter-Efficient Transfer Learning) is a config choice.

Shapes: B users, L positions, D numbers of a vector, H heads, C content numbers, R rank of an adapter.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recspark.arrays import Array
from recspark.models.retrievers.catalogue import Catalogue

GAP_DAYS = (0.5, 1.5, 3.5, 7.5, 14.5, 30.5, 60.5, 120.5, 365.5)  # edges of the time-gap buckets
NO_GAP = len(GAP_DAYS) + 1  # the bucket of an unknown time, and of every gap where `use_time` is off
INIT_STD = 0.02


@dataclass(frozen=True)
class Settings:
    """`length`: events of a user that are read; `negatives`: drawn for each batch and scenario; `use_time` False: only
    the order counts; `balance`: 0 draws users as they come, 1 so that scenarios with events have equal shares of the
    targets; `adapter_dim` 0: no adapter."""

    dim: int = 64
    layers: int = 2
    heads: int = 2
    length: int = 50
    dropout: float = 0.3
    negatives: int = 512
    batch_users: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    max_epochs: int = 30
    use_time: bool = True
    balance: float = 0.0
    adapter_dim: int = 0


class Block(nn.Module):
    """Causal attention with a learnt bias for each distance, then a gated layer; both on normalised input."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        dim, self.heads = settings.dim, settings.heads
        self.norm_in, self.norm_out = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.to_qkv, self.attended = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.gate, self.value, self.out = nn.Linear(dim, 2 * dim), nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, x_BLD: Tensor, bias_HLL: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        parts = self.to_qkv(self.norm_in(x_BLD)).view(B, L, 3, self.heads, D // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        weight_BHLL = torch.softmax(query @ key.transpose(-1, -2) / (D // self.heads) ** 0.5 + bias_HLL, dim=-1)
        mixed = (self.drop(weight_BHLL) @ value).transpose(1, 2).reshape(B, L, D)
        x_BLD = x_BLD + self.drop(self.attended(mixed))
        z = self.norm_out(x_BLD)
        return x_BLD + self.drop(self.out(F.silu(self.gate(z)) * self.value(z)))


class Network(nn.Module):
    """Item codes are item_idx + 1, 0 = padding; scenario code `num_scenarios` = one that is not known."""

    def __init__(self, settings: Settings, num_items: int, num_scenarios: int, content_IC: Array | None) -> None:
        super().__init__()
        self.settings, dim = settings, settings.dim
        self.item = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.item_bias = nn.Parameter(torch.zeros(num_items + 1))
        self.had_scenario, self.next_scenario = (nn.Embedding(num_scenarios + 1, dim) for _ in range(2))
        self.had_gap, self.next_gap = (nn.Embedding(NO_GAP + 1, dim) for _ in range(2))
        self.distance = nn.Embedding(settings.length, settings.heads)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.question, self.norm, self.drop = nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Dropout(settings.dropout)
        for table in (self.had_scenario, self.next_scenario, self.had_gap, self.next_gap):
            nn.init.normal_(table.weight, std=INIT_STD)
        nn.init.zeros_(self.distance.weight)
        nn.init.zeros_(self.item.weight)  # an item that no event trains is its content, or nothing
        width = 0 if content_IC is None else content_IC.shape[1]
        content = torch.zeros(num_items + 1, width)
        if content_IC is not None:
            content[1:] = torch.from_numpy(np.array(content_IC, np.float32))
        self.register_buffer("content_IC", content, persistent=False)
        self.project = nn.Linear(width, dim, bias=False) if width else None
        rank = settings.adapter_dim
        self.adapter_down = nn.Parameter(torch.randn(num_scenarios + 1, dim, rank) * INIT_STD) if rank else None
        self.adapter_up = nn.Parameter(torch.zeros(num_scenarios + 1, rank, dim)) if rank else None

    def vectors(self, code: Tensor) -> Tensor:
        """Item vectors, (..., D)."""
        found = self.item(code)
        return found if self.project is None else found + self.project(self.content_IC[code])

    def forward(
        self, item_BL: Tensor, had_scenario_BL: Tensor, had_gap_BL: Tensor, scenario_BL: Tensor, gap_BL: Tensor
    ) -> Tensor:
        """(B, L, D): after each event, what is asked for next in that scenario, that long after it."""
        length = item_BL.shape[1]
        place = torch.arange(length, device=item_BL.device)
        apart_LL = place[:, None] - place[None]
        bias_HLL = self.distance(apart_LL.clamp(min=0)).permute(2, 0, 1).masked_fill(apart_LL < 0, -torch.inf)
        x = self.drop(self.vectors(item_BL) + self.had_scenario(had_scenario_BL) + self.had_gap(had_gap_BL))
        for block in self.blocks:
            x = block(x, bias_HLL)
        x = x + self.next_scenario(scenario_BL) + self.next_gap(gap_BL)
        x = self.norm(x + self.question(F.silu(x)))
        if self.adapter_down is None:
            return x
        low = torch.einsum("bld,bldr->blr", x, self.adapter_down[scenario_BL])
        return x + torch.einsum("blr,blrd->bld", low, self.adapter_up[scenario_BL])


def build(settings: Settings, catalogue: Catalogue, trained: Array, seed: int) -> Network:
    """An untrained network; only the items in `trained` (item_idx) get an id embedding other than zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(settings, catalogue.num_items, catalogue.num_scenarios, catalogue.content_ID)
        drawn = torch.randn(len(trained), settings.dim) * INIT_STD
    with torch.no_grad():
        network.item.weight[torch.from_numpy(trained.astype(np.int64) + 1)] = drawn
    return network


def gap_bucket(days: Array, use_time: bool) -> Array:
    """Bucket of a time gap, int64; unknown (nan), and any gap without `use_time`, is `NO_GAP`."""
    if not use_time:
        return np.full(days.shape, NO_GAP)
    return np.where(np.isnan(days), NO_GAP, np.digitize(np.nan_to_num(days), GAP_DAYS))
