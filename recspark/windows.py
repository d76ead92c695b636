"""Which past dates the models learn from. Imports nothing of recspark.

`as_of` dates lie on a fixed weekly grid (Mondays), so that the next nights find yesterday's retrievers, candidates and
examples again. Windows are `label_days` long and `label_days` apart; a window is closed when it ended before run_date.
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


def window_end(as_of: date, label_days: int) -> date:
    """The first date after the label window that opens at as_of."""
    return as_of + timedelta(days=label_days)


def fading(day: Array, newest: int, half_life_days: float) -> Array:
    """What rows of past windows count beside the newest one's, float32: half for every half-life of their age."""
    return np.exp2((np.asarray(day, np.float64) - newest) / half_life_days).astype(np.float32)
