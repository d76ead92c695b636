import numpy as np

from benchmarks.research import scenario_popular
from recspark.histories import Histories
from recspark.models.retrievers.catalogue import Catalogue


def test_old_events_and_other_scenarios_count_by_hand() -> None:
    """Half-life 10 days, newest day 30. Scenario 0: item 0 on days 30 and 20 = 1.5, item 1 returned on day 30 = -1,
    none. Scenario 1: item 1 on day 10 = 1/4. Shrinkage 1: all = 1.5 and .25 of 1.75; item 0 in scenario 0 =
    (1.5 + 1.5 / 1.75) / 2.5, in scenario 1 = (0 + 1.5 / 1.75) / 1.25."""
    item, scenario = np.array([0, 1, 0, 1]), np.array([0, 1, 0, 0])
    nothing = np.zeros(4)
    trained = Histories(
        np.array([0, 2, 4]),
        item,
        scenario,
        np.array([20.0, 10.0, 30.0, 30.0]),
        np.array([1.0, 1, 1, -1]),
        nothing,
        nothing,
    )
    model = scenario_popular.fit(trained, Catalogue(3, 2), scenario_popular.Settings(10.0, 1.0))
    found = scenario_popular.scores(model, trained, np.array([0, 1]), np.zeros(2))
    expected = [[(1.5 + 1.5 / 1.75) / 2.5, 0.25 / 1.75 / 2.5, 0], [1.5 / 1.75 / 1.25, (0.25 + 0.25 / 1.75) / 1.25, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
