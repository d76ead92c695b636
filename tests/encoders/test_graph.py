"""Graph embeddings: figures by hand, and planted facts that can be known from others."""

from collections.abc import Iterator

import numpy as np
import pytest

from recspark.config.content import FactEmbedding
from recspark.encoders import graph
from recspark.encoders.graph import Facts
from recspark.errors import TrainingError

KINDS, MAKERS, PER_MAKER = 4, 5, 12
SETTINGS = FactEmbedding(dim=16)
Trained = tuple[Facts, np.ndarray, graph.Model]


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    """For few facts: fewer negatives and smaller batches than the product's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "NEGATIVES", 32)
        patch.setattr(graph, "BATCH_FACTS", 128)
        yield


def facts_of(triples: list[tuple[int, int, int]], sizes: tuple[int, int, int]) -> Facts:
    return Facts(*(np.array(column, dtype=np.int64) for column in zip(*triples, strict=True)), *sizes)


def planted(seed: int = 0) -> Facts:
    """Four kinds with five makers each, who have twelve items: an item has its kind (relation 0), its maker (1), who
    makes that kind alone, and three of the kind's eight words (2). So a kind is known from the maker and the words."""
    rng = np.random.default_rng(seed)
    triples = []
    for item in range(KINDS * MAKERS * PER_MAKER):
        maker = item // PER_MAKER
        kind = maker // MAKERS
        words = KINDS + KINDS * MAKERS + 8 * kind + rng.choice(8, 3, replace=False)
        triples += [(item, 0, kind), (item, 1, KINDS + maker), *((item, 2, int(word)) for word in words)]
    return facts_of(triples, (KINDS * MAKERS * PER_MAKER, 3, KINDS + KINDS * MAKERS + 8 * KINDS))


@pytest.fixture(scope="module")
def trained() -> Trained:
    """All facts, which of them were held out, and the model trained on the others."""
    facts = planted()
    held = graph.hold_out(facts, 0.1, np.random.default_rng(1))
    return facts, held, graph.fit(facts.take(~held), SETTINGS, 0, print)[0]


def test_ranks_by_hand() -> None:
    """Held out: entities 1 and 3 of item 0, which has 4 in training; entity 0 of item 1, where all scores are equal."""
    known = facts_of([(0, 0, 4), (1, 1, 2)], (2, 2, 5))
    asked = facts_of([(0, 0, 1), (0, 0, 3), (1, 0, 0)], (2, 2, 5))
    table = np.array([[2.0, 3.0, 0.0, 1.0, 9.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    found = graph.evaluate(lambda item, relation: table[item].copy(), known, asked)
    # entity 1: 4 is left out, so first; entity 3: 4 and 1 are left out and 0 is above, so second; entity 0: four others
    # are equal, so 1 + 4 / 2 = third
    assert found == {"mrr": pytest.approx((1 + 1 / 2 + 1 / 3) / 3), "hits@10": 1.0}
    twelve = facts_of([(0, 0, 11)], (1, 1, 12))
    last = graph.evaluate(lambda item, relation: -np.arange(12.0)[None], twelve.take(np.zeros(1, bool)), twelve)
    assert last == {"mrr": pytest.approx(1 / 12), "hits@10": 0.0}
    assert graph.evaluate(lambda item, relation: table, known, asked.take(np.zeros(3, bool)))["mrr"] == 0.0


def test_not_a_number_is_never_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = facts_of([(0, 0, 1)], (1, 1, 4))
    found = graph.evaluate(lambda item, relation: np.full((1, 4), np.nan), asked.take(np.zeros(1, bool)), asked)
    assert found["mrr"] <= 1 / 4
    monkeypatch.setattr(graph, "LEARNING_RATE", float("inf"))
    with pytest.raises(TrainingError, match="diverged in epoch 2"):
        graph.fit(planted(), FactEmbedding(dim=4, max_epochs=2), 0, print)


def test_what_would_be_left_without_a_fact_is_not_held_out() -> None:
    facts = facts_of([(0, 0, 0), (0, 0, 1), (1, 0, 1), (2, 0, 1)], (3, 1, 2))
    for seed in range(20):
        held = graph.hold_out(facts, 0.5, np.random.default_rng(seed))
        assert not held[[0, 2, 3]].any()  # the only fact of entity 0, of item 1, of item 2


def test_held_out_facts_are_known_from_the_others(trained: Trained) -> None:
    """A kind and a maker can be predicted; of a kind's words none is more likely than the others."""
    facts, held, model = trained
    known, asked = facts.take(~held), facts.take(held)
    kinds = asked.take(asked.relation == 0)
    assert len(kinds.item) > 10
    assert graph.evaluate(graph.scorer(model), known, kinds)["mrr"] > 0.95
    popular = np.zeros((3, facts.num_entities))
    np.add.at(popular, (known.relation, known.entity), 1.0)
    found = graph.evaluate(graph.scorer(model), known, asked)["mrr"]
    assert found > 1.5 * graph.evaluate(lambda item, relation: popular[relation], known, asked)["mrr"]


def test_an_item_that_came_later_is_put_where_training_would(trained: Trained) -> None:
    """From its facts alone each item comes next to its own trained vector: a cosine near 1, far above other items'."""
    facts, _, model = trained
    placed = graph.from_entities(model, facts.item, facts.relation, facts.entity, facts.num_items)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (placed, model.items_ID))
    cosine = a @ b.T
    own = np.diag(cosine)
    assert own.mean() > 0.9 and cosine.mean() < 0.1
    kind = np.arange(len(own)) // (MAKERS * PER_MAKER)
    assert (kind[cosine.argmax(axis=1)] == kind).all()
    assert np.linalg.norm(placed, axis=1).mean() == pytest.approx(
        np.linalg.norm(model.items_ID, axis=1).mean(), rel=0.1
    )


def test_unknown_entities_do_not_count(trained: Trained) -> None:
    model = trained[2]
    owner, relation = np.array([0, 0, 2, 2]), np.array([0, 2, 0, -1])
    found = graph.from_entities(model, owner, relation, np.array([1, -1, -1, 3]), 3)
    expected = (model.entities_ED[1] - model.centres_RD[0]) * np.float32(model.stretch)
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)
    assert not found[1:].any()


def test_the_same_seed_gives_the_same_vectors() -> None:
    short = FactEmbedding(dim=4, max_epochs=2)
    one, same, other = (graph.fit(planted(), short, seed, print)[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.items_ID, same.items_ID)
    assert not np.allclose(one.items_ID, other.items_ID)


def test_too_few_facts_to_hold_any_out() -> None:
    facts = facts_of([(0, 0, 0), (1, 0, 0)], (3, 1, 1))
    model, figures = graph.fit(facts, FactEmbedding(dim=2, max_epochs=1), 0, print)
    assert figures["mrr"] == 0.0 and not model.items_ID[2].any()
