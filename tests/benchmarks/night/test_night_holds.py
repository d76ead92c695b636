"""Deliveries with a fault, made by hand, and what they do to lists; the nights of real data are the benchmark's."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from benchmarks.night import deliveries, night_holds
from benchmarks.night.deliveries import ALL, Data
from recspark.stages import holds

FIRST = date(2024, 1, 1)
DAYS = [FIRST + timedelta(days=n) for n in range(70)]


def shop() -> Data:
    """70 days of 40 rows in DE and 10 in FR; each day one item more is listed."""
    figures: deliveries.Figures = {}
    for day in DAYS:
        figures |= {(day, "DE"): {"rows": 40.0}, (day, "FR"): {"rows": 10.0}, (day, ALL): {"raw": 50.0}}
    events = pd.DataFrame({"scenario": ["DE"] * 2800 + ["FR"] * 700})
    listed = {day: float(n + 1) for n, day in enumerate(DAYS)}
    return Data(None, None, events, None, None, figures, listed)  # type: ignore[arg-type]


def first_draw(fault: str) -> list[bool]:
    return night_holds.faulty(shop(), DAYS[-5:], deliveries.FAULTS[fault], 3)


def test_a_night_of_the_past_sees_the_days_before_it() -> None:
    found = deliveries.delivery(shop(), DAYS[60])
    assert found.run_date == DAYS[61] and {day for day, _ in found.now} == {DAYS[60]}
    assert {day for day, _ in found.past} == set(DAYS[:60]) and (found.listed, found.listed_before) == (61.0, 60.0)
    assert holds.judge(found)[0] == []


@pytest.mark.parametrize("fault", ("yesterday's file again", "a past day lost", "half a catalogue"))
def test_a_fault_that_needs_no_rows_is_held(fault: str) -> None:
    assert first_draw(fault) == [True, True, True]


def test_a_scenario_that_left_has_no_figures_and_its_rows_are_gone() -> None:
    """FR has 700 rows in all, DE 2,800: both are large enough to be drawn."""
    found = deliveries.missing_everywhere(shop(), [DAYS[-1]], np.random.default_rng(0))
    left = ({"DE", "FR"} - {name for _, name in found.now}).pop()
    raw = {x["raw"] for (_, name), x in found.now.items() if name == ALL}
    assert raw == {50.0 - {"DE": 40.0, "FR": 10.0}[left]} and len(found.now) == 2 * 70


def test_faults_of_lists_are_in_their_scenario_alone() -> None:
    lists = pd.DataFrame({
        "scenario": ["DE"] * 4 + ["FR"] * 2, "user_id": ["u", "u", "v", "v", "w", "w"],
        "item_id": ["a", "b", "b", "c", "x", "y"], "score": [4.0, 3.0, 2.0, 1.0, 9.0, 8.0],
    })  # fmt: skip
    rng = np.random.default_rng(0)
    for fault in night_holds.LIST_FAULTS.values():
        pd.testing.assert_frame_equal(fault(lists, "DE", rng)[4:], lists[4:])
    assert night_holds.constant(lists, "DE", rng)["score"].tolist() == [1.0] * 4 + [9.0, 8.0]
    assert night_holds.exchanged(lists, "DE", rng)["item_id"].tolist() == ["x", "y", "x", "y", "x", "y"]
