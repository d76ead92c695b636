"""Why a night is held, on figures made by hand: faults of the calendar, the past, the catalogue and the lists."""

from datetime import date, timedelta

import pytest

from recspark.stages import holds
from recspark.stages.holds import ALL, Delivery

FIRST = date(2024, 1, 1)  # a Monday
Figures = dict[tuple[date, str], dict[str, float]]


def day(n: int) -> date:
    return FIRST + timedelta(days=n)


def figures(days: list[int], rows: float = 100.0) -> Figures:
    """Days with two scenarios of `rows` rows each."""
    found: Figures = {}
    for n in days:
        found |= {(day(n), name): {"rows": rows} for name in ("DE", "FR")}
        found[day(n), ALL] = {"raw": 2 * rows}
    return found


def open_days(end: int) -> list[int]:
    """Closed on Saturdays."""
    return [n for n in range(end) if n % 7 != 5]


def held(**options: object) -> list[str]:
    """Reasons of a night after 70 days; a day of 200 rows is new unless `now` says otherwise."""
    base = {"run_date": day(71), "now": figures([70]), "past": figures(open_days(70))}
    return holds.judge(Delivery(**{**base, **options}))[0]  # type: ignore[arg-type]


def test_a_night_like_the_others_passes() -> None:
    assert held() == []


def test_yesterdays_file_again_is_held_and_a_closed_day_is_not() -> None:
    """Day 70 is a Monday; day 68 is a Saturday, on which the shop is closed."""
    (reason,) = held(now={})
    assert reason == "newest day: 2024-03-10; expected 2024-03-11, since on a Monday there usually are events"
    assert holds.judge(Delivery(day(69), {}, figures(open_days(68))))[0] == []


def test_of_a_holiday_only_the_first_night_is_held() -> None:
    """The first day without events was accepted; the days after it are the same holiday."""
    past = figures(open_days(70))
    assert holds.judge(Delivery(day(71), {}, past))[0]
    past[day(70), ALL] = {"raw": 0.0}
    assert holds.judge(Delivery(day(72), {}, past, closed=[day(70)]))[0] == []


def test_a_shop_that_often_closes_is_not_held_for_it() -> None:
    """One other day without events in 56 is a holiday; two are a habit; and one of last week is the same holiday."""
    for closed, is_held in (((41,), True), ((41, 48), False), ((64,), False), ((10, 13), True)):
        days = [n for n in open_days(70) if n not in closed]
        assert bool(held(now={}, past=figures(days))) == is_held, closed


def test_a_short_history_does_not_say_which_days_are_open() -> None:
    assert held(now={}, past=figures(open_days(70)[20:])) == []


def test_a_past_day_that_vanished_or_lost_its_rows_is_held() -> None:
    assert held(gone=[day(3)]) == ["raw rows, all scenarios, 2024-01-04: 0; 200 before"]
    halved = figures([70]) | figures([3], rows=45.0)
    assert held(now=halved) == ["raw rows, all scenarios, 2024-01-04: 90; 200 before"]


def test_late_events_pass() -> None:
    assert held(now=figures([70]) | figures([69], rows=105.0)) == []


def test_a_scenario_that_left_the_past_is_held() -> None:
    """60 open days of 100 rows."""
    without = {key: x for key, x in figures(open_days(71)).items() if key[1] != "FR"}
    without = {key: {"raw": 101.0} if key[1] == ALL else x for key, x in without.items()}
    assert held(now=without)[0] == "past rows, FR: 6,000 added or removed; 6,000 before"


@pytest.mark.parametrize(("listed", "reasons"), [(801.0, 0), (799.0, 1)])
def test_a_fifth_of_the_catalogue_may_be_missing(listed: float, reasons: int) -> None:
    found = held(listed=listed, listed_before=1000.0)
    assert len(found) == reasons
    assert all("catalogue: 799 items, 1,000 before" in one for one in found)


def test_a_constant_score_is_held_once() -> None:
    now = {"DE": {"lists": 100.0, "constant": 80.0, "rows": 1000.0, "scores": 280.0}}
    (reason,) = holds.judge_lists(FIRST, now, {}, {})
    assert reason == "constant score, DE: in 80% of 100 lists; expected in none"
    assert holds.judge_lists(FIRST, now, {}, now) == []  # accepted the night before
    assert holds.judge_lists(FIRST, {"DE": {**now["DE"], "constant": 50.0}}, {}, {}) == []
    assert holds.judge_lists(FIRST, {"DE": {**now["DE"], "lists": 19.0, "constant": 19.0}}, {}, {}) == []


def test_lists_are_compared_with_those_of_earlier_nights() -> None:
    """60 nights of lists that keep nine of ten places; tonight's keep one."""
    lists = {"lists": 100.0, "constant": 0.0, "rows": 1000.0, "scores": 900.0, "compared": 1000.0}
    past = {(day(n), "DE"): {**lists, "kept": 900.0 + n % 5} for n in range(60)}
    (reason,) = holds.judge_lists(day(60), {"DE": {**lists, "kept": 100.0}}, past, {})
    assert reason.startswith("places as in the last lists, DE, 2024-03-01: 0.1, expected 0.8")
    assert holds.judge_lists(day(60), {"DE": {**lists, "kept": 903.0}}, past, {}) == []


def test_every_figure_is_measured() -> None:
    """Of an event's number: its middle, first decile, spread, and how many rows have it."""
    keys = ["rows", "buy now:rows", *(f"buy now price{end}" for end in (":n", ":middle", ":low", ":spread"))]
    found = {one.name: one for one in holds.measures({(FIRST, "DE"): dict.fromkeys(keys, 1.0)})}
    assert set(found) == {
        "rows", "share of buy now", "rows with buy now price", "buy now price (middle)", "buy now price (low)",
        "buy now price (spread)",
    }  # fmt: skip
    assert found["rows with buy now price"].of == "buy now:rows"
    assert found["buy now price (low)"].spread == "buy now price:spread"
