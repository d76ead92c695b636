"""Which past dates the models learn from, and how much old ones count.

`as_of` dates lie on a fixed weekly grid (Mondays), so that the next nights can use yesterday's retrievers, candidates
and examples again. Windows are `label_days` long and `label_days` apart; a window is closed if it ended before
run_date.
"""

from datetime import date, timedelta

import numpy as np

from recspark.arrays import Array

EPOCH = date(1970, 1, 1)


def as_of_day(as_of: date) -> int:
    """Days since the epoch."""
    return (as_of - EPOCH).days


def closed_windows(run_date: date, label_days: int, num_windows: int) -> tuple[date, ...]:
    """The as_of dates of the newest closed windows, newest first."""
    last = run_date - timedelta(days=label_days)
    newest = last - timedelta(days=last.weekday())
    return tuple(newest - timedelta(days=label_days * i) for i in range(num_windows))


def as_ofs(run_date: date, label_days: int, num_windows: int) -> tuple[date, ...]:
    """The dates that a night works on: tonight, then those of the closed windows, newest first."""
    return (run_date, *closed_windows(run_date, label_days, num_windows))


def window_end(as_of: date, label_days: int) -> date:
    """The first date after the label window that begins at as_of."""
    return as_of + timedelta(days=label_days)


def exponential_decay(age_days: Array, half_life_days: float) -> Array:
    """The weight of a window of that age beside the newest one, float32: 1 for age 0, 1/2 after one half-life."""
    return np.asarray(np.exp2(-np.asarray(age_days, np.float64) / half_life_days), np.float32)
