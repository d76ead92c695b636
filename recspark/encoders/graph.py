"""Vectors of items from facts about them: TransE (Bordes et al. 2013) over triples (item, relation, entity).

The nearer item + relation is to an entity, the likelier the fact: the score is minus their squared distance. Trained by
cross entropy of the true entity among drawn ones, half of them entities that the relation has. That cross entropy pulls
an item from where its relations' entities lie on average to its own ones, and so is an item placed that came later.

Shapes: F facts, I items, R relations, E entities, D numbers of a vector, N negatives.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from recspark.arrays import Array
from recspark.errors import TrainingError

if TYPE_CHECKING:
    import torch

CHUNK = 512  # facts ranked at a time
HELD_OUT, MOST_HELD_OUT = 0.05, 5000  # share and number of facts that stop a training
PATIENCE = 3  # looks without a gain
EVERY = 2  # epochs between looks


@dataclass(frozen=True)
class Facts:
    """Distinct triples as numbers, int (F,) each, and how many numbers there are."""

    item: Array
    relation: Array
    entity: Array
    num_items: int
    num_relations: int
    num_entities: int

    def take(self, rows: Array) -> "Facts":
        """The facts at these places, or where a mask is true."""
        return replace(self, item=self.item[rows], relation=self.relation[rows], entity=self.entity[rows])


@dataclass(frozen=True)
class Settings:
    """`l2` pulls the vectors of a batch towards 0; `negatives`: as many of the relation, as many of all entities."""

    dim: int = 64
    l2: float = 0.2
    max_epochs: int = 30
    negatives: int = 256
    batch_facts: int = 1024
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Model:
    """float32 (I, D), (R, D), (E, D), (R, D); an item without a fact has zeros. `centres_RD`: the mean entity of a
    relation's facts; `stretch`: what `from_entities` is multiplied with to be as long as trained vectors."""

    items_ID: Array
    relations_RD: Array
    entities_ED: Array
    centres_RD: Array
    stretch: float


def fit(facts: Facts, settings: Settings, seed: int, say: Callable[[str], None]) -> tuple[Model, dict[str, float]]:
    """Learn from all facts but a few, whose filtered MRR chooses the epoch; and the figures of `evaluate` on those.

    Raises TrainingError when it diverges."""
    import torch  # here: who only looks vectors up need not load it

    rng = np.random.default_rng(seed)
    held = hold_out(facts, min(HELD_OUT, MOST_HELD_OUT / max(1, len(facts.item))), rng)
    known, asked = facts.take(~held), facts.take(held)
    tables = _tables(facts, settings.dim, rng)
    optimizer = torch.optim.Adagrad([table.weight for table in tables], lr=settings.learning_rate)
    pools = [np.unique(known.entity[known.relation == r]) for r in range(facts.num_relations)]
    best, figures, since = _model(tables, known), {"mrr": 0.0, "hits@10": 0.0}, 0
    for epoch in range(1, settings.max_epochs + 1):
        with torch.sparse.check_sparse_tensor_invariants(enable=False):
            for r, rows in _batches(known.relation, settings.batch_facts, rng):
                loss = _loss(tables, known.take(rows), r, _draw(pools[r], facts.num_entities, settings, rng), settings)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        if epoch % EVERY and epoch < settings.max_epochs:
            continue
        model = _model(tables, known)
        if not all(np.isfinite(table).all() for table in (model.items_ID, model.relations_RD, model.entities_ED)):
            raise TrainingError(f"item_facts.embedding: diverged in epoch {epoch}; try another seed or dim")
        found = evaluate(scorer(model), known, asked)
        say(f"item_facts: epoch {epoch}, filtered MRR {found['mrr']:.4f}, hits@10 {found['hits@10']:.4f}")
        since = 0 if found["mrr"] > figures["mrr"] else since + 1
        if not since or not held.any():  # without a judge the last epoch counts
            best, figures = model, found
        if since >= PATIENCE and held.any():
            break
    return best, figures


def hold_out(facts: Facts, share: float, rng: np.random.Generator) -> Array:
    """bool (F,): a random share, less those whose item or entity would be left without a fact."""
    drawn = rng.random(len(facts.item)) < share
    items = np.bincount(facts.item[~drawn], minlength=facts.num_items)
    entities = np.bincount(facts.entity[~drawn], minlength=facts.num_entities)
    return drawn & (items[facts.item] > 0) & (entities[facts.entity] > 0)


def scorer(model: Model) -> Callable[[Array, Array], Array]:
    """(item, relation) numbers (n,) -> a score of every entity (n, E): minus the squared distance, as far as it differs
    between entities."""
    lengths_E = np.square(model.entities_ED).sum(axis=1)

    def score(item: Array, relation: Array) -> Array:
        query = model.items_ID[item] + model.relations_RD[relation]
        return np.asarray(2 * query @ model.entities_ED.T - lengths_E)

    return score


def evaluate(score: Callable[[Array, Array], Array], known: Facts, asked: Facts) -> dict[str, float]:
    """Mean reciprocal rank and share within the first 10 of the asked facts' entities among all, those left out that
    also are facts, known or asked ("filtered", Bordes et al. 2013); equal scores share their places. 0 without any.

    `score(item, relation)` gives (n, E), which is written into."""
    rank = np.ones(len(asked.item))
    keys = np.concatenate([_pair(known), _pair(asked)])
    order = np.argsort(keys, kind="stable")
    keys, true = keys[order], np.concatenate([known.entity, asked.entity])[order]
    for low in range(0, len(rank), CHUNK):
        rows = asked.take(np.arange(low, min(low + CHUNK, len(rank))))
        scores = score(rows.item, rows.relation)
        own = scores[np.arange(len(scores)), rows.entity][:, None]
        begin, end = (np.searchsorted(keys, _pair(rows), side=side) for side in ("left", "right"))
        size = end - begin
        places = np.arange(size.sum()) + np.repeat(begin - np.cumsum(size) + size, size)
        scores[np.repeat(np.arange(len(size)), size), true[places]] = -np.inf
        rank[low : low + CHUNK] += (~(scores <= own)).sum(axis=1) + (scores == own).sum(axis=1) / 2  # NaN is no first
    return {"mrr": float((1 / rank).mean()), "hits@10": float((rank <= 10).mean())} if len(rank) else dict(NOTHING)


def from_entities(model: Model, owner: Array, relation: Array, entity: Array, size: int) -> Array:
    """float32 (size, D): where its facts put an item that was not trained: the mean, over the rows that it owns, of
    entity - centre of the relation. -1 is what was not trained, and does not count. Zeros without any."""
    kept = (relation >= 0) & (entity >= 0)
    owner, parts = owner[kept], model.entities_ED[entity[kept]] - model.centres_RD[relation[kept]]
    return _mean(parts, owner, size) * np.float32(model.stretch)


NOTHING: Mapping[str, Any] = {"mrr": 0.0, "hits@10": 0.0}


def _pair(facts: Facts) -> Array:
    return facts.item.astype(np.int64) * facts.num_relations + facts.relation


def _tables(facts: Facts, dim: int, rng: np.random.Generator) -> "list[torch.nn.Embedding]":
    """Of items, relations and entities; a batch touches few of their rows, so their gradients are sparse."""
    import torch

    sizes = (facts.num_items, facts.num_relations, facts.num_entities)
    starts = (torch.from_numpy(rng.normal(0, 0.1, (size, dim)).astype(np.float32)) for size in sizes)
    return [torch.nn.Embedding.from_pretrained(start, freeze=False, sparse=True) for start in starts]


def _batches(relation: Array, size: int, rng: np.random.Generator) -> list[tuple[int, Array]]:
    """Facts of one relation a batch, batches in random order."""
    found = []
    for r in np.unique(relation):
        rows = rng.permutation(np.flatnonzero(relation == r))
        found += [(int(r), rows[low : low + size]) for low in range(0, len(rows), size)]
    return [found[at] for at in rng.permutation(len(found))]


def _draw(pool: Array, num_entities: int, settings: Settings, rng: np.random.Generator) -> Array:
    """Distinct entities: of the relation, which are hard to tell from the true one, and of all."""
    near = rng.choice(pool, min(settings.negatives, len(pool)), replace=False)
    return np.unique(np.concatenate([near, rng.integers(num_entities, size=settings.negatives)]))


def _loss(
    tables: "list[torch.nn.Embedding]", batch: Facts, relation: int, drawn_N: Array, settings: Settings
) -> "torch.Tensor":
    """Mean cross entropy of the true entity among the drawn; the true one, where it was drawn, is left out."""
    import torch

    items, relations, entities = tables
    item_FD, true_FD, other_ND = (
        table(torch.from_numpy(at))
        for table, at in ((items, batch.item), (entities, batch.entity), (entities, drawn_N))
    )
    query_FD = item_FD + relations(torch.tensor(relation))
    own_F1 = (2 * query_FD * true_FD - true_FD.square()).sum(dim=1, keepdim=True)
    other_FN = 2 * query_FD @ other_ND.T - other_ND.square().sum(dim=1)
    other_FN = other_FN.masked_fill(torch.from_numpy(drawn_N[None] == batch.entity[:, None]), -torch.inf)
    target = torch.zeros(len(batch.item), dtype=torch.long)
    entropy = torch.nn.functional.cross_entropy(torch.cat((own_F1, other_FN), dim=1), target)
    return entropy + settings.l2 * (item_FD.square() + true_FD.square()).sum(dim=1).mean()


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
