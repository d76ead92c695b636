"""Which ranker scores which row. The other tests of the scorer, with trained models, are in test_stage.py."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from recspark import columns as c
from recspark.config.retrievers import RETRIEVERS
from recspark.models.rankers import network
from recspark.models.rankers.spec import Spec
from recspark.stages.ranker.scorer import Scorer
from recspark.training.ranking import saved, scoring
from tests.training import planted


def test_a_row_is_scored_by_the_ranker_of_its_scenario(tmp_path: Path) -> None:
    """`alone` has a ranker for scenarios 0 and 2; rows of 1 get the scores of `ranker`. The first row is of 2."""
    window, rng = planted.window(tmp_path), np.random.default_rng(0)
    features = {name: rng.normal(size=60).astype(np.float32) for name in planted.FEATURES}
    dense = np.column_stack(list(features.values()))
    rankers = f"{tmp_path}/rankers"
    spec = Spec(planted.FEATURES, ("click",), ("binary",), planted.NUM_ITEMS, 3, 0, 6, 4, (16, 8), 3, 0.0)
    for seed, place in enumerate(("ranker", "ranker_alone/0", "ranker_alone/2")):
        made = network.build(spec, seed)
        made.fit(dense, np.zeros(60, int), np.ones((60, 1), np.float32))
        saved.save(f"{rankers}/{place}", made, {})
    ids = tuple(x.astype(np.int32) for x in (2 - np.arange(60) % 3, rng.integers(0, 50, 60), rng.integers(0, 20, 60)))
    table = pa.table(dict(zip((c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX), ids, strict=True)) | features)
    scorer = Scorer(rankers, None, window.histories, window.bundle, planted.DAY, RETRIEVERS)
    found = scorer(table, ("ranker_alone",))["ranker_alone"]
    where = (window.histories, window.bundle, planted.DAY)
    for scenario, place in enumerate(("ranker_alone/0", "ranker", "ranker_alone/2")):
        rows = ids[0] == scenario
        expected = scoring.probabilities(f"{rankers}/{place}", *where, dense[rows], tuple(x[rows] for x in ids))
        np.testing.assert_allclose(found[rows], expected, atol=1e-6, rtol=0)
        assert expected.std() > 1e-3
