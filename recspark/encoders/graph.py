"""Vectors of items from facts about them: TransE over triples (item, relation, entity).

The nearer item + relation is to an entity, the likelier the fact: the score is minus their squared distance. The loss
is the cross entropy of the true entity among drawn ones, half of them entities of the same relation. It moves an item
from the mean of its relations' entities towards its own entities, so an item that came after the training is placed by
the same rule (`from_entities`).

Shapes: F facts, I items, R relations, E entities, D dimensions, N negatives.
Reference: Bordes et al. 2013, Translating Embeddings for Modeling Multi-relational Data.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.config.content import FactEmbedding
from recspark.errors import TrainingError
from recspark.histories import ranges

if TYPE_CHECKING:
    import torch

CHUNK = 512  # facts ranked at a time
HELD_OUT, MOST_HELD_OUT = 0.05, 5000  # share and largest number of facts held out for early stopping
L2 = 0.2  # pulls the vectors of a batch towards 0
NEGATIVES = 256  # entities of the relation, and as many of all entities
BATCH_FACTS = 1024
LEARNING_RATE = 0.1
PATIENCE = 3  # evaluations without a gain
EVERY = 2  # epochs between evaluations


@dataclass(frozen=True)
class Facts:
    """Distinct triples of numbers, int (F,) each; and the numbers of items, relations and entities."""

    item: Array
    relation: Array
    entity: Array
    num_items: int
    num_relations: int
    num_entities: int

    def take(self, rows: Array) -> "Facts":
        """The facts at these rows, or where a mask is True."""
        return replace(self, item=self.item[rows], relation=self.relation[rows], entity=self.entity[rows])


@dataclass(frozen=True)
class Model:
    """float32 (I, D), (R, D), (E, D), (R, D); an item without a fact has zeros. `centres_RD`: the mean entity of a
    relation's facts; `stretch`: the factor that makes the vectors of `from_entities` as long as trained ones."""

    items_ID: Array
    relations_RD: Array
    entities_ED: Array
    centres_RD: Array
    stretch: float


def fit(
    facts: Facts, settings: FactEmbedding, seed: int, report: Callable[[str], None]
) -> tuple[Model, dict[str, float]]:
    """Train on all facts except a few held-out ones, whose filtered MRR chooses the epoch.

    Returns: the model, and the figures of `evaluate` on the held-out facts.
    Raises: TrainingError when it diverges.
    """
    import torch  # here: not needed by code that only reads vectors

    rng = np.random.default_rng(seed)
    held = hold_out(facts, min(HELD_OUT, MOST_HELD_OUT / max(1, len(facts.item))), rng)
    known, held_out = facts.take(~held), facts.take(held)
    tables = _tables(facts, settings.dim, rng)
    optimizer = torch.optim.Adagrad([table.weight for table in tables], lr=LEARNING_RATE)
    pools = [np.unique(known.entity[known.relation == r]) for r in range(facts.num_relations)]
    best, figures, since = _model(tables, known), {"mrr": 0.0, "hits@10": 0.0}, 0
    unchecked = torch.sparse.check_sparse_tensor_invariants(enable=False)  # type: ignore[no-untyped-call]  # of torch
    for epoch in range(1, settings.max_epochs + 1):
        with unchecked:
            for r, rows in _batches(known.relation, BATCH_FACTS, rng):
                loss = _loss(tables, known.take(rows), r, _draw(pools[r], facts.num_entities, rng))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
        if epoch % EVERY and epoch < settings.max_epochs:
            continue
        model = _model(tables, known)
        if not all(np.isfinite(table).all() for table in (model.items_ID, model.relations_RD, model.entities_ED)):
            raise TrainingError(f"item_facts.embedding: diverged in epoch {epoch}; try another seed or dim")
        found = evaluate(scorer(model), known, held_out)
        report(f"item_facts: epoch {epoch}, filtered MRR {found['mrr']:.4f}, hits@10 {found['hits@10']:.4f}")
        since = 0 if found["mrr"] > figures["mrr"] else since + 1
        if not since or not held.any():  # without held-out facts the last epoch is kept
            best, figures = model, found
        if since >= PATIENCE and held.any():
            break
    return best, figures


def hold_out(facts: Facts, share: float, rng: np.random.Generator) -> Array:
    """bool (F,): a random share, without facts whose item or entity would have no fact left."""
    drawn = rng.random(len(facts.item)) < share
    items = np.bincount(facts.item[~drawn], minlength=facts.num_items)
    entities = np.bincount(facts.entity[~drawn], minlength=facts.num_entities)
    return drawn & (items[facts.item] > 0) & (entities[facts.entity] > 0)


def scorer(model: Model) -> Callable[[Array, Array], Array]:
    """A function of (item, relation) numbers (n,) that scores every entity, (n, E): minus the squared distance, without
    the part that is the same for all entities."""
    lengths_E = np.square(model.entities_ED).sum(axis=1)

    def score(item: Array, relation: Array) -> Array:
        query = model.items_ID[item] + model.relations_RD[relation]
        return np.asarray(2 * query @ model.entities_ED.T - lengths_E)

    return score


def evaluate(score: Callable[[Array, Array], Array], known: Facts, held_out: Facts) -> dict[str, float]:
    """Mean reciprocal rank (MRR) of the held-out facts' entities among all, and the share within the first 10.

    Filtered as by Bordes et al. 2013: other entities that are facts themselves, known or held out, are left out. Equal
    scores share their ranks. 0 without held-out facts. `score(item, relation)` gives (n, E), which is written into.
    """
    rank = np.ones(len(held_out.item))
    keys = np.concatenate([_pair(known), _pair(held_out)])
    order = np.argsort(keys, kind="stable")
    keys, true = keys[order], np.concatenate([known.entity, held_out.entity])[order]
    for low in range(0, len(rank), CHUNK):
        rows = held_out.take(np.arange(low, min(low + CHUNK, len(rank))))
        scores = score(rows.item, rows.relation)
        own = scores[np.arange(len(scores)), rows.entity][:, None]
        begin, end = (np.searchsorted(keys, _pair(rows), side=side) for side in ("left", "right"))
        size = end - begin
        places = np.repeat(begin, size) + ranges(size)
        scores[np.repeat(np.arange(len(size)), size), true[places]] = -np.inf
        rank[low : low + CHUNK] += (~(scores <= own)).sum(axis=1) + (scores == own).sum(
            axis=1
        ) / 2  # NaN is never first
    if not len(rank):
        return {"mrr": 0.0, "hits@10": 0.0}
    return {"mrr": float((1 / rank).mean()), "hits@10": float((rank <= 10).mean())}


def from_entities(model: Model, owner: Array, relation: Array, entity: Array, size: int) -> Array:
    """Vectors float32 (size, D) of items that were not trained, from their facts: the mean over an item's rows of
    entity - centre of the relation.

    `owner` (n,): the item of each row; -1: a relation or entity that was not trained, which does not count. An item
    without any has zeros.
    """
    kept = (relation >= 0) & (entity >= 0)
    owner, parts = owner[kept], model.entities_ED[entity[kept]] - model.centres_RD[relation[kept]]
    return np.asarray(_mean(parts, owner, size) * np.float32(model.stretch))


def _pair(facts: Facts) -> Array:
    """One number for each (item, relation)."""
    return np.asarray(facts.item.astype(np.int64) * facts.num_relations + facts.relation)


def _tables(facts: Facts, dim: int, rng: np.random.Generator) -> "list[torch.nn.Embedding]":
    """Tables of items, relations and entities; a batch uses few of their rows, so their gradients are sparse."""
    import torch

    sizes = (facts.num_items, facts.num_relations, facts.num_entities)
    starts = [torch.from_numpy(rng.normal(0, 0.1, (size, dim)).astype(np.float32)) for size in sizes]
    return [torch.nn.Embedding(len(start), dim, sparse=True, _weight=start) for start in starts]


def _batches(relation: Array, size: int, rng: np.random.Generator) -> list[tuple[int, Array]]:
    """Batches of facts of one relation each, in random order."""
    found = []
    for r in np.unique(relation):
        rows = rng.permutation(np.flatnonzero(relation == r))
        found += [(int(r), rows[low : low + size]) for low in range(0, len(rows), size)]
    return [found[at] for at in rng.permutation(len(found))]


def _draw(pool: Array, num_entities: int, rng: np.random.Generator) -> Array:
    """Distinct negatives: from the entities of the relation, which are the hard ones, and from all entities."""
    hard = rng.choice(pool, min(NEGATIVES, len(pool)), replace=False)
    return np.asarray(np.unique(np.concatenate([hard, rng.integers(num_entities, size=NEGATIVES)])))


def _loss(tables: "list[torch.nn.Embedding]", batch: Facts, relation: int, drawn_N: Array) -> "torch.Tensor":
    """Mean cross entropy of the true entity among the drawn ones, from which the true one is left out."""
    import torch

    items, relations, entities = tables
    item_FD: torch.Tensor = items(torch.from_numpy(batch.item))
    true_FD: torch.Tensor = entities(torch.from_numpy(batch.entity))
    other_ND: torch.Tensor = entities(torch.from_numpy(drawn_N))
    query_FD = item_FD + relations(torch.tensor(relation))
    own_F1 = (2 * query_FD * true_FD - true_FD.square()).sum(dim=1, keepdim=True)
    other_FN = 2 * query_FD @ other_ND.T - other_ND.square().sum(dim=1)
    other_FN = other_FN.masked_fill(torch.from_numpy(drawn_N[None] == batch.entity[:, None]), -torch.inf)
    target = torch.zeros(len(batch.item), dtype=torch.long)
    entropy = torch.nn.functional.cross_entropy(torch.cat((own_F1, other_FN), dim=1), target)
    return entropy + L2 * (item_FD.square() + true_FD.square()).sum(dim=1).mean()


def _model(tables: "list[torch.nn.Embedding]", known: Facts) -> Model:
    items, relations, entities = (table.weight.detach().numpy().copy() for table in tables)
    items[np.bincount(known.item, minlength=len(items)) == 0] = 0.0
    plain = Model(items, relations, entities, _mean(entities[known.entity], known.relation, len(relations)), 1.0)
    placed = from_entities(plain, known.item, known.relation, known.entity, len(items))
    return replace(plain, stretch=float((placed * items).sum() / max(np.square(placed).sum(), 1e-12)))


def _mean(rows: Array, owner: Array, size: int) -> Array:
    """float32 (size, D) of float32 rows (n, D): the mean of each owner's; zeros without any."""
    sums = sp.csr_matrix((np.ones(len(owner), np.float32), (owner, np.arange(len(owner)))), (size, len(owner))) @ rows
    return np.asarray(sums / np.maximum(np.bincount(owner, minlength=size), 1)[:, None], np.float32)
