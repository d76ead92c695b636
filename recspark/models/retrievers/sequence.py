"""SASRec over the user's events of all scenarios in order of time, trained by sampled softmax over many negatives.

Negatives are drawn uniformly from the items with events in the target's scenario, so the score of an item estimates
log(probability to be next / probability of a uniform draw there). It ranks full and sampled lists alike.

Shapes: B users, L positions, D numbers of a vector, N negatives, P targets, U users, I items.
Reference: Kang and McAuley 2018 (SASRec); Klenitskiy and Vasilev 2023, Turning Dross Into Gold Loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recspark.arrays import Array
from recspark.config.retrievers import Sequence
from recspark.errors import DataError
from recspark.histories import Histories, owners
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.sequence_network import Network, build, gap_bucket

MAX_GRADIENT_NORM = 5.0
BETAS = (0.9, 0.98)
BATCH_USERS = 128
USERS_A_BLOCK = 256
BUCKET = 16  # batches whose users are sorted by length together: little padding, and batches still random enough


@dataclass(frozen=True)
class Model:
    """`weights`: the network's tensors by name, float32; `content_ID`: as in the catalogue."""

    settings: Sequence
    num_items: int
    num_scenarios: int
    content_ID: Array | None
    weights: dict[str, Array]


@dataclass(frozen=True)
class Sequences:
    """The newest events of each user, oldest first, int64 (U, L): item and scenario codes, time-gap buckets.

    `time`: float64 (U, L), days. `length`: (U,). Item code 0 fills the end of a row.
    """

    item: Array
    scenario: Array
    gap: Array
    time: Array
    length: Array


@dataclass(frozen=True)
class Targets:
    """Training data: the users with two events and more.

    `pools`: codes of the items of each scenario. `chance`: (U,) the probability to draw a user; None: each once an
    epoch.
    """

    sequences: Sequences
    pools: dict[int, Array]
    chance: Array | None

    @property
    def items(self) -> Array:
        """item_idx of every item with an event."""
        return np.asarray(np.unique(np.concatenate(list(self.pools.values()))) - 1)


def pack(histories: Histories, width: int, num_items: int, num_scenarios: int) -> Sequences:
    """The newest `width` positive events of each user, without unknown items; an unknown scenario has its own code."""
    num_users = len(histories.offsets) - 1
    owner = owners(histories.offsets)
    known = (histories.weight > 0) & (histories.item_idx >= 0) & (histories.item_idx < num_items)
    owner, item, time = owner[known], histories.item_idx[known], histories.time[known]
    scenario = np.where(histories.scenario_idx[known] < num_scenarios, histories.scenario_idx[known], num_scenarios)
    ends = np.cumsum(np.bincount(owner, minlength=num_users))
    kept = ends[owner] - np.arange(len(owner)) <= width
    owner, item, time, scenario = owner[kept], item[kept], time[kept], scenario[kept]
    length = np.bincount(owner, minlength=num_users)
    place = np.arange(len(owner)) - (np.cumsum(length) - length)[owner]
    gap = np.diff(time, prepend=np.nan)
    gap[place == 0] = np.nan

    def table(values: Array, fill: float, dtype: type[np.generic]) -> Array:
        out: Array = np.full((num_users, width), fill, dtype=dtype)
        out[owner, place] = values
        return out

    codes = (
        table(item + 1, 0, np.int64),
        table(scenario, num_scenarios, np.int64),
        table(gap_bucket(gap), 0, np.int64),
    )
    return Sequences(*codes, table(time, np.nan, np.float64), length)


def targets(histories: Histories, catalogue: Catalogue, settings: Sequence, balance: float = 0.0) -> Targets:
    """Training data of the events.

    `balance`: 0 draws each user once an epoch; 1 draws users so that all scenarios have the same share of the targets.

    Raises: DataError if no user has two events.
    """
    all_users = pack(histories, settings.length + 1, catalogue.num_items, catalogue.num_scenarios)
    several = all_users.length > 1
    if not several.any():
        raise DataError(f"sequence: found no user with two events among {len(several)}, expected some; widen the data")
    data = Sequences(*(array[several] for array in vars(all_users).values()))
    real = data.item > 0
    pools = {int(s): np.unique(data.item[real & (data.scenario == s)]) for s in np.unique(data.scenario[real])}
    chance = None
    if balance:
        is_target = real.copy()
        is_target[:, 0] = False
        count = np.bincount(data.scenario[is_target], minlength=catalogue.num_scenarios + 1).astype(np.float64)
        weight = np.where(is_target, np.maximum(count, 1.0)[data.scenario] ** -balance, 0.0).sum(axis=1)
        chance = weight / is_target.sum(axis=1)
        chance /= chance.sum()
    return Targets(data, pools, chance)


def epoch(network: Network, optimizer: torch.optim.Optimizer, data: Targets, seed: int, number: int) -> float:
    """One pass over the users; depends on the weights, `seed` and `number` alone.

    Returns: the mean loss of a target.
    """
    rng = np.random.default_rng((seed, number))
    num_users = len(data.sequences.length)
    order = rng.permutation(num_users) if data.chance is None else rng.choice(num_users, num_users, p=data.chance)
    total, count = 0.0, 0
    network.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(1 << 62)))  # for dropout
        for users in _batches(order, data.sequences.length, BATCH_USERS, rng):
            loss, num_targets = batch_loss(network, data, users, rng)
            optimizer.zero_grad()
            torch.autograd.backward(loss / num_targets)
            torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
            optimizer.step()
            total, count = total + float(loss.detach()), count + num_targets
    return total / count


def _batches(order: Array, length: Array, size: int, rng: np.random.Generator) -> list[Array]:
    """Batches of users with histories of similar length, in random order."""
    batches = []
    for low in range(0, len(order), size * BUCKET):
        part = order[low : low + size * BUCKET]
        part = part[np.argsort(length[part], kind="stable")]
        batches += [part[at : at + size] for at in range(0, len(part), size)]
    return [batches[at] for at in rng.permutation(len(batches))]


def batch_loss(network: Network, data: Targets, users: Array, rng: np.random.Generator) -> tuple[Tensor, int]:
    """(sum of the sampled-softmax losses, number of targets) of some users."""
    s, longest = data.sequences, int(data.sequences.length[users].max())
    item, scenario, gap = (torch.from_numpy(x[users, :longest]) for x in (s.item, s.scenario, s.gap))
    state_BLD = network(item[:, :-1], scenario[:, :-1], gap[:, :-1], scenario[:, 1:], gap[:, 1:])
    real = item[:, 1:] > 0
    state_PD, target_P, scenario_P = state_BLD[real], item[:, 1:][real], scenario[:, 1:][real]
    loss = state_PD.new_zeros(())
    for number, pool in data.pools.items():
        rows = scenario_P == number
        if rows.any():
            drawn = torch.from_numpy(rng.choice(pool, network.settings.negatives))
            loss = loss + _softmax_loss(network, state_PD[rows], target_P[rows], drawn)
    return loss, len(target_P)


def _softmax_loss(network: Network, state_PD: Tensor, target_P: Tensor, drawn_N: Tensor) -> Tensor:
    """Sum over P of the cross entropy of the target against the drawn negatives; a negative that is the target is left
    out."""
    own_P1 = (state_PD * network.vectors(target_P)).sum(dim=1, keepdim=True) + network.item_bias[target_P, None]
    other_PN = state_PD @ network.vectors(drawn_N).T + network.item_bias[drawn_N]
    other_PN = other_PN.masked_fill(drawn_N[None] == target_P[:, None], -torch.inf)
    logits = torch.cat((own_P1, other_PN), dim=1)
    return F.cross_entropy(logits, torch.zeros(len(target_P), dtype=torch.long), reduction="sum")


def optimizer_of(network: Network) -> torch.optim.Optimizer:
    learning_rate = network.settings.learning_rate
    return torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.0, betas=BETAS)


def fit(histories: Histories, catalogue: Catalogue, settings: Sequence, seed: int) -> Model:
    """Train for `max_epochs`; training/retrieval/sequence.py also stops early and resumes after a kill.

    Raises: DataError if no user has two events.
    """
    data = targets(histories, catalogue, settings)
    network = build(settings, catalogue, data.items, seed)
    optimizer = optimizer_of(network)
    for number in range(settings.max_epochs):
        epoch(network, optimizer, data, seed, number)
    return freeze(network, catalogue)


def freeze(network: Network, catalogue: Catalogue) -> Model:
    """The network's weights as a model, copied."""
    weights = {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}
    return Model(network.settings, catalogue.num_items, catalogue.num_scenarios, catalogue.content_ID, weights)


def thaw(model: Model) -> Network:
    """The network of a model, for scoring."""
    network = Network(model.settings, model.num_items, model.num_scenarios, model.content_ID)
    network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in model.weights.items()})
    return network.eval()


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """log(probability that the item is next / probability of a uniform draw), float32 (U, I).

    `scenario_idx`, `time` (U,): the scenario and the moment (days) of each user's query.

    Returns: NaN (not scored) for a user without a known item.
    """
    return np.asarray(queries(model, histories, scenario_idx, time) @ vectors(model).T)


def queries(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """float32 (U, D + 1): the state of each user's query, and a 1 for the items' biases; NaN for a user without a known
    item."""
    with torch.no_grad():
        found = states(model, thaw(model), histories, scenario_idx, time).numpy()
    return np.column_stack((found, np.where(np.isnan(found[:, 0]), np.nan, 1.0))).astype(np.float32)


def vectors(model: Model) -> Array:
    """float32 (I, D + 1): a score is the product of a query and an item's vector."""
    network = thaw(model)
    with torch.no_grad():
        found = network.vectors(torch.arange(1, model.num_items + 1)).numpy()
        return np.column_stack((found, network.item_bias[1:].numpy()))


def scores_at(model: Model, histories: Histories, scenario_idx: Array, time: Array, item_idx: Array) -> Array:
    """`scores` of the items `item_idx` (U, K) of each user only, float32 (U, K)."""
    network = thaw(model)
    found = np.empty(item_idx.shape, dtype=np.float32)
    with torch.no_grad():
        states_UD = states(model, network, histories, scenario_idx, time)
        vectors_ID = network.vectors(torch.arange(model.num_items + 1))
        for low in range(0, len(found), USERS_A_BLOCK):
            rows = slice(low, low + USERS_A_BLOCK)
            code_UK = torch.from_numpy(item_idx[rows].astype(np.int64)) + 1
            dots_UK = torch.einsum("ukd,ud->uk", vectors_ID[code_UK], states_UD[rows])
            found[rows] = (dots_UK + network.item_bias[code_UK]).numpy()
    return found


def states(model: Model, network: Network, histories: Histories, scenario_idx: Array, time: Array) -> Tensor:
    """The state of each user's query, float32 (U, D); NaN for a user without a known item. All rows are padded to the
    same length, so a user's numbers do not depend on the other users of a block."""
    s = pack(histories, model.settings.length, model.num_items, model.num_scenarios)
    num_users = len(s.length)
    last = np.maximum(s.length - 1, 0)
    gap = gap_bucket(time - s.time[np.arange(num_users), last])
    scenario = np.where(np.asarray(scenario_idx) < model.num_scenarios, scenario_idx, model.num_scenarios)
    found = torch.full((num_users, model.settings.dim), torch.nan)
    for low in range(0, num_users, USERS_A_BLOCK):
        rows = slice(low, min(low + USERS_A_BLOCK, num_users))
        parts = [torch.from_numpy(x[rows]) for x in (s.item, s.scenario, s.gap)]
        query = [torch.from_numpy(np.asarray(x[rows]))[:, None].expand_as(parts[0]) for x in (scenario, gap)]
        state_BLD = network(*parts, *query)
        found[rows] = state_BLD[torch.arange(len(parts[0])), torch.from_numpy(last[rows])]
    found[torch.from_numpy(s.length == 0)] = torch.nan
    return found


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) of a model folder."""
    arrays = {f"weight.{name}": array for name, array in model.weights.items()}
    if model.content_ID is not None:
        arrays["content"] = model.content_ID
    manifest = {"settings": model.settings.model_dump(), "items": model.num_items, "scenarios": model.num_scenarios}
    return manifest, arrays


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`: the same scores to the last bit."""
    weights = {name[len("weight.") :]: array for name, array in arrays.items() if name.startswith("weight.")}
    sizes = (manifest["items"], manifest["scenarios"])
    return Model(Sequence(**manifest["settings"]), *sizes, arrays.get("content"), weights)
