"""A night that was begun before midnight and is started again after it."""

from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from recspark.warehouse import unfinished

EVENING = datetime(2024, 3, 1, 23, 50, tzinfo=timezone.utc)
NIGHT = EVENING.date()


@pytest.mark.parametrize(
    "after,found",
    (
        (timedelta(minutes=5), None),  # still that day: today is right
        (timedelta(minutes=20), NIGHT),  # 0:10 of the next day
        (timedelta(hours=11), NIGHT),
        (timedelta(hours=13), None),
        (timedelta(hours=24), None),  # the next night of the schedule
    ),
)
def test_a_restart_after_midnight_goes_on(tmp_path: Path, after: timedelta, found: date | None) -> None:
    unfinished.begin(str(tmp_path), NIGHT, EVENING)
    assert unfinished.of(str(tmp_path), EVENING + after) == found


def test_a_night_that_ended_well_is_not_begun_again(tmp_path: Path) -> None:
    unfinished.begin(str(tmp_path), NIGHT, EVENING)
    unfinished.end(str(tmp_path), NIGHT)
    assert unfinished.of(str(tmp_path), EVENING + timedelta(minutes=20)) is None
    file = tmp_path / "_state" / "night.json"
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    unfinished.begin(str(tmp_path), NIGHT, EVENING + timedelta(minutes=1))  # the same night again changes nothing
    unfinished.end(str(tmp_path), NIGHT)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_a_restart_keeps_the_time_of_the_first_start(tmp_path: Path) -> None:
    """Otherwise a night that fails all day would be yesterday's for ever."""
    unfinished.begin(str(tmp_path), NIGHT, EVENING)
    unfinished.begin(str(tmp_path), NIGHT, EVENING + timedelta(hours=8))
    assert unfinished.of(str(tmp_path), EVENING + timedelta(hours=13)) is None


def test_a_night_of_another_date_is_not_todays(tmp_path: Path) -> None:
    """A past night (`--run-date`) that was begun this evening does not become the night of tomorrow morning."""
    unfinished.begin(str(tmp_path), NIGHT - timedelta(days=1), EVENING)
    assert unfinished.of(str(tmp_path), EVENING + timedelta(minutes=20)) is None


def test_without_a_file_or_with_half_of_one_there_is_no_night(tmp_path: Path) -> None:
    unfinished.end(str(tmp_path), NIGHT)
    assert unfinished.of(str(tmp_path / "none"), EVENING) is None
    (tmp_path / "_state").mkdir(exist_ok=True)
    (tmp_path / "_state" / "night.json").write_text('{"run_')
    assert unfinished.of(str(tmp_path), EVENING) is None
