"""The network of `sequence`: a causal transformer over a user's events, and vectors of items.

An item's vector is its id embedding plus its projected content, so items without events are scored by content. The
query (which scenario, and how long after the last event) is added to the state of the last event. In mode `adapter`
every scenario has an adapter.

Shapes: B users, L positions, D numbers of a vector, H heads, C content numbers, R rank of an adapter.
Reference: Houlsby et al. 2019, Parameter-Efficient Transfer Learning (adapters).
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recspark.arrays import Array
from recspark.config.retrievers import Sequence
from recspark.models.retrievers.catalogue import Catalogue

GAP_DAYS = (0.5, 1.5, 3.5, 7.5, 14.5, 30.5, 60.5, 120.5, 365.5)  # edges of the time-gap buckets
NO_GAP = len(GAP_DAYS) + 1  # the bucket of an unknown time
INIT_STD = 0.02
ADAPTER_DIM = 8


class Block(nn.Module):
    """Causal attention with a trained bias for each distance, then a gated layer; both on normalised input."""

    def __init__(self, settings: Sequence) -> None:
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
        gated: Tensor = self.drop(self.out(F.silu(self.gate(z)) * self.value(z)))
        return x_BLD + gated


class Network(nn.Module):
    """Item codes are item_idx + 1, and 0 for padding; scenario code `num_scenarios` is an unknown scenario."""

    content_IC: Tensor

    def __init__(self, settings: Sequence, num_items: int, num_scenarios: int, content_IC: Array | None) -> None:
        super().__init__()
        self.settings, dim = settings, settings.dim
        self.item = nn.Embedding(num_items + 1, dim, padding_idx=0)
        self.item_bias = nn.Parameter(torch.zeros(num_items + 1))
        self.event_scenario, self.query_scenario = (nn.Embedding(num_scenarios + 1, dim) for _ in range(2))
        self.event_gap, self.query_gap = (nn.Embedding(NO_GAP + 1, dim) for _ in range(2))
        self.distance = nn.Embedding(settings.length, settings.heads)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.query_layer, self.norm, self.drop = nn.Linear(dim, dim), nn.LayerNorm(dim), nn.Dropout(settings.dropout)
        for table in (self.event_scenario, self.query_scenario, self.event_gap, self.query_gap):
            nn.init.normal_(table.weight, std=INIT_STD)
        nn.init.zeros_(self.distance.weight)
        nn.init.zeros_(self.item.weight)  # the vector of an item without events is its content alone
        width = 0 if content_IC is None else content_IC.shape[1]
        content = torch.zeros(num_items + 1, width)
        if content_IC is not None:
            content[1:] = torch.from_numpy(np.array(content_IC, np.float32))
        self.register_buffer("content_IC", content, persistent=False)
        self.project = nn.Linear(width, dim, bias=False) if width else None
        self.adapter_down: nn.Parameter | None = None
        self.adapter_up: nn.Parameter | None = None
        if settings.mode == "adapter":
            self.adapter_down = nn.Parameter(torch.randn(num_scenarios + 1, dim, ADAPTER_DIM) * INIT_STD)
            self.adapter_up = nn.Parameter(torch.zeros(num_scenarios + 1, ADAPTER_DIM, dim))

    def vectors(self, code: Tensor) -> Tensor:
        """Item vectors, (..., D)."""
        found: Tensor = self.item(code)
        return found if self.project is None else found + self.project(self.content_IC[code])

    def forward(
        self, item_BL: Tensor, event_scenario_BL: Tensor, event_gap_BL: Tensor, scenario_BL: Tensor, gap_BL: Tensor
    ) -> Tensor:
        """(B, L, D): the state after each event, for a query in that scenario, that long after the event."""
        length = item_BL.shape[1]
        place = torch.arange(length, device=item_BL.device)
        apart_LL = place[:, None] - place[None]
        bias_HLL = self.distance(apart_LL.clamp(min=0)).permute(2, 0, 1).masked_fill(apart_LL < 0, -torch.inf)
        x: Tensor = self.drop(
            self.vectors(item_BL) + self.event_scenario(event_scenario_BL) + self.event_gap(event_gap_BL)
        )
        for block in self.blocks:
            x = block(x, bias_HLL)
        x = x + self.query_scenario(scenario_BL) + self.query_gap(gap_BL)
        x = self.norm(x + self.query_layer(F.silu(x)))
        if self.adapter_down is None or self.adapter_up is None:
            return x
        low = torch.einsum("bld,bldr->blr", x, self.adapter_down[scenario_BL])
        return x + torch.einsum("blr,blrd->bld", low, self.adapter_up[scenario_BL])


def build(settings: Sequence, catalogue: Catalogue, trained: Array, seed: int) -> Network:
    """An untrained network; only the items in `trained` (item_idx) get an id embedding that is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(settings, catalogue.num_items, catalogue.num_scenarios, catalogue.content_ID)
        drawn = torch.randn(len(trained), settings.dim) * INIT_STD
    with torch.no_grad():
        network.item.weight[torch.from_numpy(trained.astype(np.int64) + 1)] = drawn
    return network


def gap_bucket(days: Array) -> Array:
    """Bucket of a time gap, int64; NO_GAP for an unknown one (NaN)."""
    return np.where(np.isnan(days), NO_GAP, np.digitize(np.nan_to_num(days), GAP_DAYS))
