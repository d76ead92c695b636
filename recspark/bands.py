"""Bands for a night's figures, learnt from earlier days: which of tonight's lie outside?

Each figure of each scenario is put on a scale that suits it and predicted one day ahead from its level and its day of
the week. Errors of past predictions, in units of their usual size, give the limits: for each kind of figure the largest
error of a day over all scenarios has a tail, which is carried on beyond what was seen (Pareto). All limits together let
a night without a fault pass with probability 1 - FALSE_STOPS.

Shapes: T days, E entries (one figure of one scenario).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from recspark.arrays import Array

FALSE_STOPS = 0.01  # part of the nights without a fault that may be held
WARM = 14  # days of an entry before its errors count
DAYS = 28  # days with errors of a figure, before it can be held
LEVEL, SEASON, SIZE = 0.1, 0.15, 0.05  # weight of a new day in the level, the day of the week, the size of errors
CLIPPED = 3.0  # sizes of errors: a larger one counts as this much
BORROWED = 10.0  # days that the size of errors of all scenarios counts for, beside an own one
TAIL = 0.2  # part of the days with errors that makes the tail
LEAST = 20  # rows or users that a share or a number is compared of
REGULAR = 0.8  # part of the open days with events, from which on a scenario's absence counts as 0 events
LARGE = 300  # rows from which on a figure has limits of its own: chance is smaller, and so are the tails
WEEK = 7
COUNT, SHARE, SPREAD, NUMBER = "count", "share", "spread", "number"  # kinds of figures

Statistics = Mapping[tuple[int, str], Mapping[str, float]]  # (day, scenario) -> figure -> value


@dataclass(frozen=True)
class Measure:
    """A figure that is compared. `figure`: its key in the statistics; `of`: the key of the number of rows it is of;
    `spread`: of a number, the key of its spread."""

    name: str
    kind: str
    figure: str
    of: str = ""
    spread: str = ""


@dataclass(frozen=True)
class Panel:
    """Figures on their scales. `value`, `chance`, `rows` (T, E): the figure (NaN: none), the error that chance alone
    gives, and the rows it is of; `center`, `unit` (E,): what a number was scaled by."""

    days: Array
    entries: tuple[tuple[str, Measure], ...]  # (scenario, measure)
    value: Array
    chance: Array
    rows: Array
    center: Array
    unit: Array

    def names(self) -> Array:
        return np.array([measure.name for _, measure in self.entries])


@dataclass(frozen=True)
class Finding:
    """A figure outside its band. `excess`: its distance from what was expected, in widths of that side of the band."""

    day: int
    scenario: str
    name: str
    found: float
    low: float
    high: float
    excess: float


def panel(statistics: Statistics, measures: Sequence[Measure]) -> Panel:
    """All figures of all days. A count of a regular scenario that is absent on an open day is 0."""
    days = sorted({day for day, _ in statistics})
    at = {day: n for n, day in enumerate(days)}
    entries = [(scenario, measure) for scenario in sorted({name for _, name in statistics}) for measure in measures]
    column = {entry: n for n, entry in enumerate(entries)}
    raw, of, spread = (np.full((len(days), len(entries)), np.nan) for _ in range(3))
    for (day, scenario), found in statistics.items():
        for measure in measures:
            where = at[day], column[scenario, measure]
            of[where], spread[where] = found.get(measure.of, np.nan), found.get(measure.spread, np.nan)
            none = 0.0 if measure.kind == SHARE and measure.of in found else np.nan
            raw[where] = found.get(measure.figure, none)
    some = np.flatnonzero(~np.isnan(raw).all(axis=0))
    columns = [_scaled(entries[n][1].kind, raw[:, n], of[:, n], spread[:, n]) for n in some]
    value, chance = (np.column_stack([one[i] for one in columns]) for i in (0, 1))
    center, unit = (np.array([one[i] for one in columns]) for i in (2, 3))
    return Panel(np.array(days), tuple(entries[n] for n in some), value, chance, of[:, some], center, unit)


def _scaled(kind: str, x: Array, of: Array, spread: Array) -> tuple[Array, Array, float, float]:
    """(value, chance, center, unit) of one entry, from its raw figures (T,)."""
    if kind == COUNT:  # chance comes with the prediction
        return np.log(np.where(_missed(x), 0.0, x) + 0.5), np.zeros(len(x)), 0.0, 1.0
    root = np.sqrt(np.where(of >= LEAST, of, np.nan))
    if kind == SHARE:
        return np.arcsin(np.sqrt(np.clip(x / root**2, 0.0, 1.0))), 0.5 / root, 0.0, 1.0
    if kind == SPREAD:
        return np.log(np.where((x > 0) & ~np.isnan(root), x, np.nan)), 1 / root, 0.0, 1.0
    center, usual = float(np.nanmedian(x)), float(np.nanmedian(spread))
    unit = usual or abs(center) or 1.0
    scaled = np.where(np.isnan(root), np.nan, np.arcsinh((x - center) / unit))
    return scaled, spread / 2.56 / root / unit / np.cosh(np.nan_to_num(scaled)), center, unit


def _missed(x: Array) -> Array:
    """The days without a figure of a scenario that had one on most of its days before."""
    here, day = ~np.isnan(x), np.arange(len(x))
    first = int(np.argmax(here))
    before = np.concatenate([[0], np.cumsum(here)[:-1]]) / np.maximum(day - first, 1)
    return np.asarray(~here & (day > first) & (before >= REGULAR))


def _raw(kind: str, x: float, center: float, unit: float) -> float:
    """A figure from its scaled value."""
    if kind == COUNT:
        return float(max(np.exp(x) - 0.5, 0.0))
    if kind == SHARE:
        return float(np.sin(np.clip(x, 0.0, np.pi / 2)) ** 2)
    return float(np.exp(x)) if kind == SPREAD else float(center + unit * np.sinh(x))


def predictions(data: Panel) -> tuple[Array, Array]:
    """(expected, size), (T, E): each day as predicted from the days before it, and the usual error; NaN where fewer
    than WARM days are known."""
    num_days, num = data.value.shape
    level, season, size = np.zeros(num), np.zeros((WEEK, num)), np.full(num, np.nan)
    seen, weekdays = np.zeros(num), np.zeros((WEEK, num))
    expected, sizes = np.full((num_days, num), np.nan), np.full((num_days, num), np.nan)
    counts = np.array([measure.kind == COUNT for _, measure in data.entries])
    _, group = np.unique(data.names(), return_inverse=True)
    for t, day in enumerate(data.days):
        x, weekday = data.value[t], int(day) % WEEK
        here, ready = ~np.isnan(x), ~np.isnan(x) & (seen >= WARM)
        predicted = level + season[weekday]
        chance = np.where(counts, np.exp(-0.5 * np.maximum(predicted, 0.0)), data.chance[t])
        expected[t, ready] = predicted[ready]
        sizes[t, ready] = np.maximum(_usual(size, seen, group), chance)[ready]
        clip = np.where(seen < WARM, np.inf, CLIPPED * np.sqrt(np.nan_to_num(size)))
        error = np.where(here, np.clip(x - predicted, -clip, clip), 0.0)
        squared = np.where(np.isnan(size), error**2, size)
        squared += np.maximum(SIZE, 1 / np.maximum(seen, 1)) * (error**2 - squared)
        size = np.where(here & (seen > 0), squared, size)
        season[weekday] += np.where(seen >= WEEK, np.maximum(SEASON, 1 / (weekdays[weekday] + 2)), 0.0) * error
        level += np.maximum(LEVEL, 1 / (seen + 1)) * error
        weekdays[weekday] += here
        seen += here
    return expected, sizes


def _usual(size: Array, seen: Array, group: Array) -> Array:
    """The usual error of each entry (E,), from its own squared errors and those of all scenarios."""
    own, old = np.log(np.maximum(np.nan_to_num(size), 1e-12)), seen >= WARM
    number = np.bincount(group, weights=old)[group]
    pooled = np.bincount(group, weights=old * own)[group] / np.maximum(number, 1)
    shrunk = (seen * own + BORROWED * pooled) / (seen + BORROWED)
    return np.asarray(np.exp(0.5 * np.where(number > 0, shrunk, own)))


def limits(errors: Array, names: Array) -> dict[tuple[str, int], float]:
    """(figure, side) -> the largest error of a day without a fault, in usual sizes. `errors` (T, E): of past days;
    `names` (T, E): figures with limits of their own."""
    largest: dict[tuple[str, int], Array] = {}
    for name in sorted(set(names[~np.isnan(errors)])):
        of = np.where(names == name, errors, np.nan)
        of = of[~np.isnan(of).all(axis=1)]
        if len(of) >= DAYS:
            largest |= {(name, side): np.nanmax(side * of, axis=1) for side in (-1, 1)}
    tails = {key: _tail(found) for key, found in largest.items()}
    moving = [shape for _, excess, shape, _ in tails.values() if excess > 0]  # the others were never wrong
    shape = float(np.clip(np.median(moving or [0.0]), 0.05, 0.5))
    chance = FALSE_STOPS / max(len(moving), 1)
    found = {}
    for key, (start, excess, _, part) in tails.items():
        beyond = excess * (1 - shape) / shape * ((part / chance) ** shape - 1)
        found[key] = max(start + beyond, float(stats.norm.isf(chance)))
    return found


def _tail(found: Array) -> tuple[float, float, float, float]:
    """(start, mean excess, shape, part of the days) of the upper tail, by probability weighted moments.

    Reference: Hosking and Wallis 1987, for the generalised Pareto distribution.
    """
    ordered = np.sort(found)
    k = max(8, int(TAIL * len(ordered)))
    start = float(ordered[-k - 1])
    tail = ordered[-k:] - start
    mean, weighted = float(tail.mean()), float((tail * (1 - (np.arange(k) + 0.65) / k)).mean())
    shape = 2 - mean / (mean - 2 * weighted) if mean > 2 * weighted else 0.0
    return start, mean, -shape, k / len(ordered)


def outside(data: Panel, judged: Collection[int]) -> tuple[list[Finding], int]:
    """(what lies outside its band on the judged days, how many figures were compared), the farthest outside first.

    `judged`: days of `data`; the limits come from the other ones.
    """
    expected, size = predictions(data)
    error = (data.value - expected) / size
    new = np.isin(data.days, list(judged))
    names = np.where(data.rows >= LARGE, np.char.add(data.names(), " of many"), data.names())
    limit = limits(error[~new], names[~new])
    found, compared = [], 0
    for t in np.flatnonzero(new):
        for n in np.flatnonzero(~np.isnan(error[t])):
            scenario, measure = data.entries[n]
            name = names[t, n] if (names[t, n], 1) in limit else measure.name
            if (name, 1) not in limit:
                continue
            compared += 1
            low, high = limit[name, -1], limit[name, 1]
            z, e, s = error[t, n], expected[t, n], size[t, n]
            if not -low <= z <= high:
                ends = (data.value[t, n], e - low * s, e + high * s)
                x, least, most = (_raw(measure.kind, float(end), data.center[n], data.unit[n]) for end in ends)
                excess = float(z / high if z > 0 else -z / low)
                found.append(Finding(int(data.days[t]), scenario, measure.name, x, least, most, excess))
    return sorted(found, key=lambda one: -one.excess), compared
