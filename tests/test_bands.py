"""Bands: scales and predictions by hand, how often clean planted nights are held, and which faults are found."""

from collections.abc import Callable

import numpy as np
import pytest

from recspark import bands
from recspark.bands import COUNT, NUMBER, SHARE, SPREAD, Measure

ROWS = Measure("rows", COUNT, "rows")
KNOWN = Measure("known", SHARE, "known", "rows")
PRICE = Measure("price", NUMBER, "price:middle", "rows", "price:spread")
PRICE_SPREAD = Measure("price spread", SPREAD, "price:spread", "rows")
MEASURES = (ROWS, KNOWN, PRICE, PRICE_SPREAD)
SCENARIOS = {"big": 1000.0, "mid": 300.0, "small": 30.0}


def planted(num_days: int, seed: int, growth: float = 0.0) -> dict[tuple[int, str], dict[str, float]]:
    """Days of three scenarios: busy on one weekday, closed on another, errors of a t distribution (heavy tails)."""
    rng = np.random.default_rng(seed)
    found = {}
    for day in range(num_days):
        if day % 7 == 5:
            continue
        for name, size in SCENARIOS.items():
            busy = 2.0 if day % 7 == 2 else 1.0
            rows = np.rint(size * busy * np.exp(growth * day + 0.2 * rng.standard_t(5)))
            if rows >= 1:
                spread = 4 * np.exp(0.1 * rng.standard_t(5))
                middle = 10 + 0.5 * rng.standard_t(5) + rng.normal() * spread / np.sqrt(rows)
                known = rng.binomial(int(rows), 0.8)
                found[day, name] = {"rows": rows, "known": known, "price:middle": middle, "price:spread": spread}
    return found


def held(figures: dict[tuple[int, str], dict[str, float]], day: int) -> list[bands.Finding]:
    before = {key: x for key, x in figures.items() if key[0] <= day}
    return bands.outside(bands.panel(before, MEASURES), [day])[0]


def test_scales_by_hand() -> None:
    """The share 25 of 100 is asin(1/2), its chance error 1/2 over the root of 100; numbers are scaled by their median
    spread, 3 here: (16 - 10) / 3 = 2."""
    statistics = {
        (0, "a"): {"rows": 100.0, "known": 25.0, "price:middle": 10.0, "price:spread": 3.0},
        (1, "a"): {"rows": 400.0, "known": 0.0, "price:middle": 10.0, "price:spread": 3.0},
        (2, "a"): {"rows": 25.0, "known": 25.0, "price:middle": 16.0, "price:spread": 3.0},
        (3, "a"): {"rows": 19.0, "known": 19.0, "price:middle": 16.0, "price:spread": 3.0},  # too few to compare
    }
    data = bands.panel(statistics, MEASURES)
    rows, known, price, spread = data.value.T
    np.testing.assert_allclose(rows, np.log([100.5, 400.5, 25.5, 19.5]))
    np.testing.assert_allclose(known, [np.pi / 6, 0.0, np.pi / 2, np.nan])
    np.testing.assert_allclose(data.chance[:3, 1], [0.05, 0.025, 0.1])
    # the median of 10, 10, 16, 16 is 13
    np.testing.assert_allclose(price, np.arcsinh([-1.0, -1.0, 1.0, np.nan]))
    np.testing.assert_allclose(spread[:3], np.log(3.0))


def test_a_regular_scenario_that_is_absent_has_no_rows_and_an_irregular_one_is_not_compared() -> None:
    statistics = {(day, "all"): {"rows": 5.0} for day in range(11)}
    statistics |= {(day, "regular"): {"rows": 5.0} for day in range(10)}
    statistics |= {(day, "irregular"): {"rows": 5.0} for day in range(0, 10, 3)}
    data = bands.panel(statistics, [ROWS])
    last = dict(zip([scenario for scenario, _ in data.entries], data.value[10], strict=True))
    assert last["regular"] == pytest.approx(np.log(0.5)) and np.isnan(last["irregular"])


def test_the_day_of_the_week_is_learnt() -> None:
    """100 rows, but 400 on one weekday: after half a year both are predicted within a tenth."""
    statistics = {(day, "a"): {"rows": 400.0 if day % 7 == 3 else 100.0} for day in range(182)}
    expected, _ = bands.predictions(bands.panel(statistics, [ROWS]))
    for day in range(175, 182):
        assert expected[day, 0] == pytest.approx(np.log(400.5 if day % 7 == 3 else 100.5), abs=0.1)


def test_the_limit_of_exponential_errors() -> None:
    """One figure with two sides: each may be passed with chance .01 / 2, which an exponential error does at
    -log(.005) = 5.3."""
    rng = np.random.default_rng(0)
    errors = rng.exponential(size=(5000, 1)) * rng.choice([-1, 1], size=(5000, 1))
    limit = bands.limits(errors, np.full((5000, 1), "x"))
    # an error is on a side with chance 1/2: -log(.005 * 2) = 4.6
    assert limit["x", 1] == pytest.approx(4.6, abs=0.7) and limit["x", -1] == pytest.approx(4.6, abs=0.7)


def test_clean_nights_pass() -> None:
    """Of 51 nights half a one is held by chance at .01; four or more once in 600 times."""
    figures = planted(300, 1)
    assert sum(bool(held(figures, day)) for day in range(240, 300) if day % 7 != 5) <= 3


def test_a_shop_that_grows_passes() -> None:
    figures = planted(300, 3, growth=0.01)
    assert sum(bool(held(figures, day)) for day in range(280, 300) if day % 7 != 5) <= 1


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("rows", lambda x: {**x, "rows": 0.1 * x["rows"], "known": 0.1 * x["known"]}),
        ("known", lambda x: {**x, "known": 0.2 * x["known"]}),
        ("price", lambda x: {**x, "price:middle": x["price:middle"] + 8.0}),
        ("price spread", lambda x: {**x, "price:spread": 5 * x["price:spread"]}),
    ],
)
def test_a_fault_is_found_and_named(name: str, fault: Callable[[dict[str, float]], dict[str, float]]) -> None:
    figures = planted(300, 4)
    measure = next(one for one in MEASURES if one.name == name)
    for day in (290, 297, 298):
        clean, faulty = (x[measure.figure] / (x["rows"] if measure.kind == SHARE else 1)
                         for x in (figures[day, "big"], fault(figures[day, "big"])))  # fmt: skip
        first = held({**figures, (day, "big"): fault(figures[day, "big"])}, day)[0]
        assert (first.day, first.scenario, first.name) == (day, "big", name)
        assert first.found == pytest.approx(faulty)
        assert first.low <= clean <= first.high and not first.low <= faulty <= first.high


def test_a_large_scenario_that_vanishes_is_found() -> None:
    figures = planted(300, 5)
    figures = {key: x for key, x in figures.items() if key != (298, "big")}
    assert (held(figures, 298)[0].scenario, held(figures, 298)[0].found) == ("big", 0.0)


def test_with_little_history_nothing_is_compared() -> None:
    figures = planted(30, 6)
    figures[29, "big"]["rows"] = 1.0
    assert bands.outside(bands.panel(figures, MEASURES), [29]) == ([], 0)
