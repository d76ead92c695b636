from datetime import date

import numpy as np

from recspark.windows import closed_windows, exponential_decay, window_end


def test_windows_lie_on_mondays_and_are_closed() -> None:
    # 2011-11-11 - 28 days = Friday 2011-10-14; the Monday before is the 10th; then 28 days back each
    assert closed_windows(date(2011, 11, 11), 28, 3) == (date(2011, 10, 10), date(2011, 9, 12), date(2011, 8, 15))


def test_a_night_later_finds_the_same_windows() -> None:
    assert closed_windows(date(2011, 12, 10), 28, 3) == closed_windows(date(2011, 12, 11), 28, 3)


def test_a_window_that_ends_on_the_run_date_is_closed() -> None:
    monday = date(2011, 10, 10)
    assert closed_windows(window_end(monday, 28), 28, 1) == (monday,)


def test_a_window_whose_last_day_is_the_run_date_is_still_open() -> None:
    """2011-10-10 + 28 days = 2011-11-07; the night of the 6th does not know what users did on the 6th."""
    assert closed_windows(date(2011, 11, 6), 28, 1) == (date(2011, 10, 3),)


def test_older_windows_count_less() -> None:
    """28 days before the newest is half of a half-life of 56: 2^-.5; 56 days before it, half."""
    weights = exponential_decay(np.array([0, 28, 56]), 56.0)
    np.testing.assert_allclose(weights, [1.0, 2**-0.5, 0.5], rtol=1e-6)
