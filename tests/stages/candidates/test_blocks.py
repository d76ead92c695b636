"""Which items may be candidates, on a bundle made by hand. No Spark."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from recspark import model_folder
from recspark.config.retrievers import RETRIEVERS
from recspark.config.schema import ScenarioRule, Scenarios
from recspark.features import ItemStats
from recspark.models.retrievers import popular
from recspark.stages.candidates.blocks import Lists, Settings, eligible, retrieve
from recspark.stages.candidates.scores import Scores
from recspark.stages.retriever.bundle import Bundle

# Four known items and one that is not; `popular` prefers high numbers.
KNOWN = np.array([True, True, True, True, False])
POPULAR = popular.fit(np.arange(5), np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 1, 5, 0.0)


@pytest.fixture
def bundle() -> Bundle:
    none = np.zeros((1, 5), np.float32)
    cells = (np.zeros(0, np.int64), none[:, :0], none[0, :0], none[0, :0])
    stats = ItemStats(none, none, none[0], none[0], none[0], none[0], none[0], *cells)
    own = {"DE": np.array([True, False, True, True, False])}
    return Bundle(0, {"DE": 0}, np.zeros(1, np.int32), 56.0, None, POPULAR, np.zeros((5, 1), np.float32), {}, KNOWN,
                  np.arange(5), own, stats)  # fmt: skip


def retrieved(bundle: Bundle, rule: ScenarioRule) -> dict[str, list[int]]:
    """Retriever -> its items in order of rank, two at most, of one list. The user has seen item 3, which `linear` puts
    first, before 2, 1, 0 and the unknown one."""
    seen = sp.csr_matrix(np.array([[0, 0, 0, 1, 0]], np.float32))
    linear = np.array([[1.0, 2.0, 3.0, 9.0, 0.5]], np.float32)
    scores = Scores(seen, seen, np.array([-1.0]), {"linear": linear}, {})
    lists = Lists(np.array([0]), np.array([0]), ["DE"], np.array([0]))
    settings = Settings(date(2024, 3, 4), Scenarios(default=rule), depth=2, k=2, block_users=7)
    rows = retrieve(lists, scores, bundle, settings)
    found = {}
    for name in ("linear", "popular"):
        ranks = rows.ranks[:, RETRIEVERS.index(name)]
        order = np.argsort(ranks)[: np.isfinite(ranks).sum()]
        assert ranks[order].tolist() == list(range(1, 1 + len(order)))
        found[name] = rows.item_idx[order].tolist()
    return found


def test_no_retriever_gives_items_that_the_user_has_seen(bundle: Bundle) -> None:
    assert retrieved(bundle, ScenarioRule()) == {"linear": [2, 1], "popular": [2, 1]}
    assert retrieved(bundle, ScenarioRule(seen="allow")) == {"linear": [3, 2], "popular": [3, 2]}


def test_items_of_a_scenario_by_its_rule(bundle: Bundle, tmp_path: Path) -> None:
    """`where` leaves the items 0, 1 and 4, of which 4 is not known; 0, 2 and 3 have an event in DE."""
    model_folder.save(
        f"{tmp_path}/rules", {"where": ["x"], "of": []}, {"where": np.array([[True, True, False, False, True]])}
    )

    def items(**rule: object) -> list[int]:
        scenarios = Scenarios(default=ScenarioRule.model_validate(rule))
        return np.flatnonzero(eligible(bundle, scenarios, "DE", f"{tmp_path}/rules")).tolist()

    assert items() == [0, 1, 2, 3]
    assert items(items="own") == [0, 2, 3]
    assert items(where="x") == [0, 1]
    assert items(items="own", where="x") == [0]
