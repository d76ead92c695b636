import numpy as np
import pytest

from recspark.config.retrievers import ContentTowers
from recspark.errors import DataError
from recspark.histories import Histories
from recspark.models.retrievers import content_towers
from recspark.models.retrievers.catalogue import Catalogue

KINDS, EACH = 4, 6  # kind k is bought after kind k - 1


def world() -> tuple[Histories, Catalogue]:
    """Items of four kinds with content near their kind's direction; the last item of each kind is never bought."""
    rng = np.random.default_rng(0)
    content = np.repeat(np.eye(KINDS, 8), EACH, axis=0) + 0.05 * rng.normal(size=(KINDS * EACH, 8))
    kinds = (rng.integers(0, KINDS, 300)[:, None] + np.arange(4)) % KINDS
    item = (kinds * EACH + rng.integers(0, EACH - 1, kinds.shape)).ravel()
    ones = np.ones(len(item))
    histories = Histories(np.arange(301) * 4, item, np.zeros(len(item), dtype=np.int64), ones, ones, ones, ones)
    return histories, Catalogue(KINDS * EACH, 1, content.astype(np.float32))


def test_an_item_without_events_is_found_by_what_similar_items_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain similarity recommends the same kind; the towers learn the next kind, for the unsold item as well."""
    monkeypatch.setattr(content_towers, "BATCH_TARGETS", 64)
    histories, catalogue = world()
    query = (np.zeros(300, dtype=np.int64), np.full(300, np.nan))
    settings = ContentTowers(dim=8, negatives=16, learning_rate=0.05, max_epochs=10)
    model = content_towers.fit(histories, catalogue, settings, 0)
    found = content_towers.scores(model, histories, *query)
    next_kind = (histories.item_idx[3::4] // EACH + 1) % KINDS
    unsold = np.arange(KINDS) * EACH + EACH - 1
    assert (np.argmax(found[:, unsold], axis=1) == next_kind).mean() > 0.95
    plain = content_towers.fit(histories, catalogue, ContentTowers(dim=8).model_copy(update={"max_epochs": 0}), 0)
    same = np.argmax(content_towers.scores(plain, histories, *query)[:, unsold], axis=1)
    assert (same == histories.item_idx[3::4] // EACH).mean() > 0.95


def test_nothing_known_is_not_scored() -> None:
    """A user without events, and an item without content."""
    histories, catalogue = world()
    content = np.array(catalogue.content_ID)
    content[3] = 0
    model = content_towers.fit(histories, Catalogue(len(content), 1, content), ContentTowers(max_epochs=1), 0)
    none = np.zeros(0)
    empty = Histories(np.array([0, 0]), none.astype(int), none.astype(int), none, none, none, none)
    assert not content_towers.scores(model, empty, np.zeros(1, dtype=int), np.zeros(1)).any()
    assert not content_towers.scores(model, histories, np.zeros(300, dtype=int), np.zeros(300))[:, 3].any()


def test_a_catalogue_without_content_is_refused() -> None:
    histories, catalogue = world()
    with pytest.raises(DataError, match="no content"):
        content_towers.fit(histories, Catalogue(catalogue.num_items, 1), ContentTowers(), 0)
