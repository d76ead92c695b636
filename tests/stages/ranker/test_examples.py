"""Which windows judge the modes, and which teach the evaluated models. No Spark."""

from datetime import date, timedelta

import pytest

from recspark.stages.ranker.examples import Examples, judged


@pytest.mark.parametrize(
    ("num_examples", "asked", "expected"),
    [
        (1, 1, 1),  # nothing to learn from before it: the retrievers alone are judged
        (2, 2, 1),
        (3, 2, 1),  # at most half of them
        (4, 2, 2),
        (8, 2, 2),
        (8, 9, 4),
    ],
)
def test_judged_windows_are_at_most_half(num_examples: int, asked: int, expected: int) -> None:
    windows = [Examples(date(2024, 1, 1) - timedelta(days=28 * n), "x", (), "", 1) for n in range(num_examples)]
    assert judged(windows, asked) == expected
