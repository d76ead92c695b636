"""Two towers over content embeddings: the content of the user's items predicts the content of the next one, so a new
item without any event is found like any other.

Both towers are linear and start as the same projection on the leading directions of the content, where the score is
the plain content similarity. Training on users' next items moves them apart (sampled softmax, negatives drawn
uniformly from the items of the target's scenario).

Shapes: U users, E events, I items, C content numbers, D numbers of a vector, T training targets, N negatives.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.config.retrievers import ContentTowers
from recspark.errors import DataError
from recspark.histories import Histories, owners
from recspark.models.retrievers.affinity import places_from_end
from recspark.models.retrievers.catalogue import Catalogue
from recspark.models.retrievers.content import unit

if TYPE_CHECKING:
    import torch


DECAY_PER_EVENT = 0.7  # weight of an event relative to the next one: exponential decay by place
NEWEST_EVENTS = 20  # of a user that count
BATCH_TARGETS = 1024
LOGIT_SCALE = 10.0  # a logit is this times the score, which starts as a cosine


@dataclass(frozen=True)
class Model:
    """`content_IC`: float32, rows of length 1 or zeros. `recent_CD`, `last_CD`: the user's tower. `item_CD`: the
    item's."""

    settings: ContentTowers
    content_IC: Array
    recent_CD: Array
    last_CD: Array
    item_CD: Array


def fit(histories: Histories, catalogue: Catalogue, settings: ContentTowers, seed: int) -> Model:
    """Train on the next item of each event.

    Raises: DataError if the catalogue has no content.
    """
    import torch  # here: scoring does not need it

    if catalogue.content_ID is None or not catalogue.content_ID.any():
        raise DataError("content_towers: found no content in the catalogue; give items a text, or turn it off")
    content = unit(catalogue.content_ID)
    basis = _leading(content, settings.dim)
    towers = [torch.nn.Parameter(torch.from_numpy(basis * scale)) for scale in (0.5, 0.5, 1.0)]
    optimizer = torch.optim.Adam(towers, lr=settings.learning_rate)
    before, last, target, scenario = _examples(histories, content)
    pools = {s: np.unique(target[scenario == s]) for s in np.unique(scenario)}
    for number in range(settings.max_epochs):
        rng = np.random.default_rng((seed, number))
        for s, rows in _batches(scenario, BATCH_TARGETS, rng):
            drawn = rng.choice(pools[s], settings.negatives)
            loss = _loss(towers, content, before[rows], last[rows], target[rows], drawn)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return Model(settings, content, *(tower.detach().numpy().copy() for tower in towers))


def _leading(content_IC: Array, dim: int) -> Array:
    """Orthonormal directions of the largest variance of the content, float32 (C, <= dim)."""
    values, vectors = np.linalg.eigh((content_IC.T @ content_IC).astype(np.float64))
    return np.ascontiguousarray(vectors[:, np.argsort(-values)[:dim]], dtype=np.float32)


def _examples(histories: Histories, content_IC: Array) -> tuple[sp.csr_matrix, Array, Array, Array]:
    """For every event with content that follows another one: the decayed events before it (T, I), the item of the event
    before it, its own item and its scenario (T,)."""
    owner, item, scenario = _known(histories, len(content_IC))
    place = np.arange(len(owner))
    rows, columns, weights = [], [], []
    for step in range(1, NEWEST_EVENTS + 1):
        same = np.flatnonzero(owner[step:] == owner[:-step])
        rows.append(same + step)
        columns.append(item[same])
        weights.append(np.full(len(same), DECAY_PER_EVENT ** (step - 1), np.float32))
    shape = (len(owner), len(content_IC))
    parts = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    follows = np.diff(owner, prepend=-1) == 0
    follows &= content_IC[item].any(axis=1)
    before = sp.csr_matrix(parts, shape=shape)[follows]
    return before, item[place[follows] - 1], item[follows], scenario[follows]


def _known(histories: Histories, num_items: int) -> tuple[Array, Array, Array]:
    """(user, item, scenario) of the positive events with a known item."""
    owner = owners(histories.offsets)
    kept = (histories.weight > 0) & (histories.item_idx >= 0) & (histories.item_idx < num_items)
    return owner[kept], histories.item_idx[kept], histories.scenario_idx[kept]


def _batches(scenario: Array, size: int, rng: np.random.Generator) -> list[tuple[int, Array]]:
    """Batches of targets of one scenario, in random order."""
    found = []
    for s in np.unique(scenario):
        rows = rng.permutation(np.flatnonzero(scenario == s))
        found += [(int(s), rows[low : low + size]) for low in range(0, len(rows), size)]
    return [found[at] for at in rng.permutation(len(found))]


def _loss(
    towers: "list[torch.nn.Parameter]",
    content_IC: Array,
    before_TI: sp.csr_matrix,
    last_T: Array,
    target_T: Array,
    drawn_N: Array,
) -> "torch.Tensor":
    """Mean cross entropy of the target against the drawn negatives; a negative that is the target is left out."""
    import torch

    recent_CD, last_CD, item_CD = towers
    profile = torch.from_numpy(unit(np.asarray(before_TI @ content_IC)))
    user_TD = profile @ recent_CD + torch.from_numpy(content_IC[last_T]) @ last_CD
    own_T1 = (user_TD * (torch.from_numpy(content_IC[target_T]) @ item_CD)).sum(dim=1, keepdim=True)
    other_TN = user_TD @ (torch.from_numpy(content_IC[drawn_N]) @ item_CD).T
    other_TN = other_TN.masked_fill(torch.from_numpy(drawn_N[None] == target_T[:, None]), -torch.inf)
    logits = LOGIT_SCALE * torch.cat((own_T1, other_TN), dim=1)
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(target_T), dtype=torch.long))


def queries(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """The user's tower, float32 (U, D); zeros for a user without an item with content. The query's scenario and time
    change nothing."""
    num_users = len(histories.offsets) - 1
    owner, item, _ = _known(histories, len(model.content_IC))
    back = places_from_end(owner, num_users)
    weight = np.where(back < NEWEST_EVENTS, DECAY_PER_EVENT**back, 0.0).astype(np.float32)
    shape = (num_users, len(model.content_IC))
    recent = unit(np.asarray(sp.csr_matrix((weight, (owner, item)), shape=shape) @ model.content_IC))
    last = np.zeros_like(recent)
    last[owner[back == 0]] = model.content_IC[item[back == 0]]
    return np.asarray(recent @ model.recent_CD + last @ model.last_CD, np.float32)


def vectors(model: Model) -> Array:
    """float32 (I, D): a score is the product of a query and an item's vector; zeros without content."""
    return np.asarray(model.content_IC @ model.item_CD, np.float32)


def scores(model: Model, histories: Histories, scenario_idx: Array, time: Array) -> Array:
    """The product of the two towers, float32 (U, I); 0 (not scored) where one of them has no content."""
    return np.asarray(queries(model, histories, scenario_idx, time) @ vectors(model).T)


def to_arrays(model: Model) -> tuple[dict[str, Any], dict[str, Array]]:
    """(manifest, arrays) of a model folder."""
    arrays = {name: array for name, array in vars(model).items() if name != "settings"}
    return {"settings": model.settings.model_dump()}, arrays


def from_arrays(manifest: Mapping[str, Any], arrays: Mapping[str, Array]) -> Model:
    """The inverse of `to_arrays`: the same scores to the last bit."""
    return Model(settings=ContentTowers(**manifest["settings"]), **arrays)
