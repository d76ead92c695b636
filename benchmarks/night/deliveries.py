"""The figures of every day of a data set, and deliveries of a night with and without a fault; for night_holds.

All is made by the code of the stages `interactions` and `night_statistics`. A fault is put into the rows of a night,
drawn by a random generator, and the night's figures are made again.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.night.night_quality import find, spark_of, with_paths
from recspark import columns as c
from recspark.config.load import load
from recspark.config.schema import Config
from recspark.stages.holds import ALL, Delivery

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

BIG = 300  # rows of a scenario in a night, from which on a fault of it must be noticed
Figures = dict[tuple[date, str], dict[str, float]]


@dataclass
class Data:
    """`events`: accepted ones; `rows`: raw ones; `known`: the items that events may have; `figures` of all days;
    `listed`: day -> items listed by its end."""

    config: Config
    spark: "SparkSession"
    events: pd.DataFrame
    rows: "DataFrame"
    known: "DataFrame | None"
    figures: Figures
    listed: dict[date, float] = field(default_factory=dict)

    @property
    def days(self) -> list[date]:
        return sorted({day for day, _ in self.figures})


def read(data: str) -> Data:
    """All events of a data set and the figures of its days, made by the product's code."""
    from recspark.sources import catalogue
    from recspark.sources import raw as source_rows

    folder, yaml = find(data)
    with tempfile.TemporaryDirectory() as warehouse:
        config = load(yaml, (*with_paths(yaml, folder), f"warehouse={warehouse}"))
        spark = spark_of(config)
        source = config.source.interactions
        rows = source_rows.read(spark, source, "source.interactions")
        end = config.run_date or date.today()
        if config.source.items is None:
            known, listed = None, {}
        else:
            items = source_rows.read(spark, config.source.items, catalogue.SECTION)
            parsed = catalogue.parse(items, config.source.items, end)
            first = parsed.groupBy(c.ITEM_ID).agg({c.EVENT_TIME: "min"}).toDF(c.ITEM_ID, "first").toPandas()
            known = spark.createDataFrame(first[[c.ITEM_ID]]) if config.interactions.unknown_items == "reject" else None
            listed = pd.to_datetime(first["first"]).dt.date.value_counts().sort_index().cumsum().to_dict()
        events, figures = figures_of(config, rows, end, known, None)
        return Data(config, spark, events, rows, known, figures, listed)


def figures_of(
    config: Config,
    rows: "DataFrame",
    end: date,
    known: "DataFrame | None",
    before: "DataFrame | None",
) -> tuple[pd.DataFrame, Figures]:
    """(accepted events, figures of their days) of raw rows; `before`: earlier events."""
    from recspark.stages.interactions import building

    with building(rows, config.source.interactions, end, known) as built:
        events = built.accepted.localCheckpoint()
        days = dict(built.days)
        return events.toPandas(), of_events(config, events, days, before)


def of_events(config: Config, events: "DataFrame", days: dict[Any, Any], before: "DataFrame | None") -> Figures:
    """Figures of the days of `events`; `days`: their counts."""
    from recspark.stages.night_statistics import numbers
    from recspark.tables import night_statistics

    all_events = events if before is None else events.unionByName(before)
    judged = [day for day in days if day is not None]
    found = night_statistics.of_days(all_events, judged, numbers(config)).collect()
    figures: Figures = {(row.day, row[c.SCENARIO]): dict(row.statistics) for row in found}
    return figures | {(day, ALL): x for day, x in night_statistics.of_deliveries(days).items()}


def delivery(data: Data, day: date, now: Figures | None = None, **changes: Any) -> Delivery:
    """What the night after `day` compares; `now`: other figures of that day."""
    past = {key: x for key, x in data.figures.items() if key[0] < day}
    present = {key[0] for key in past}
    calendar = (min(present) + timedelta(days=n) for n in range((day - min(present)).days))
    closed = [one for one in calendar if one not in present]
    tonight = {key: x for key, x in data.figures.items() if key[0] == day} if now is None else now
    sizes = [max((n for first, n in data.listed.items() if first <= end), default=None)
             for end in (day, max(present))]  # fmt: skip
    options = {"closed": closed, "listed": sizes[0], "listed_before": sizes[1], **changes}
    return Delivery(day + timedelta(days=1), tonight, past, **options)


# -- faults: a night with one, from a random generator -----------------------------------------------------------------


def shifted(data: Data, days: list[date], rng: np.random.Generator) -> Delivery:
    """A number of one scenario is half a standard deviation higher or lower."""
    day, scenario, events = drawn(data, days, rng)
    here = events[c.SCENARIO] == scenario
    names = [name for name in numbers_of(data) if values(events[here], name).std() > 0]
    name, sign = names[rng.integers(len(names))], rng.choice([-0.5, 0.5])
    moved = values(events, name) + sign * values(events[here], name).std() * here
    events = events.copy()
    if name == c.VALUE:
        events[c.VALUE] = moved
    else:
        rows = zip(events[c.CONTEXT], moved, strict=True)
        events[c.CONTEXT] = [{**dict(old), name: str(new)} for old, new in rows]
    return delivery(data, day, figures_again(data, day, events))


def swapped(data: Data, days: list[date], rng: np.random.Generator) -> Delivery | None:
    """A scenario and another one of that night have each other's name; None without another."""
    day, scenario, events = drawn(data, days, rng)
    others = sorted(set(events[c.SCENARIO]) - {scenario})
    if not others:
        return None
    other = others[rng.integers(len(others))]
    names = events[c.SCENARIO].replace({scenario: other, other: scenario})
    return delivery(data, day, figures_again(data, day, events.assign(**{c.SCENARIO: names})))


def missing_tonight(data: Data, days: list[date], rng: np.random.Generator) -> Delivery:
    """A scenario has no rows that night."""
    day, scenario, events = drawn(data, days, rng)
    kept = events[events[c.SCENARIO] != scenario]
    raw = len(kept) / len(events) * data.figures[day, ALL]["raw"]
    if kept.empty:
        return delivery(data, day, {})
    return delivery(data, day, figures_again(data, day, kept, {"raw": raw}))


def missing_everywhere(data: Data, days: list[date], rng: np.random.Generator) -> Delivery:
    """A scenario of BIG rows or more left the source, with all its past."""
    totals = data.events.groupby(c.SCENARIO).size()
    names = sorted(totals[totals >= BIG].index)
    scenario, day = names[rng.integers(len(names))], days[rng.integers(len(days))]
    touched = {d for d, name in data.figures if name == scenario and d <= day}
    now = {key: x for key, x in data.figures.items() if key[0] in touched | {day} and key[1] != scenario}
    for one in touched:
        left = data.figures[one, ALL]["raw"] - data.figures[one, scenario]["rows"]
        now[one, ALL] = {**data.figures[one, ALL], "raw": left}
    return delivery(data, day, now)


def doubled(data: Data, days: list[date], rng: np.random.Generator) -> Delivery:
    """All rows twice: equal, with another value in one column, or a minute later."""
    from pyspark.sql import functions as F

    day = days[rng.integers(len(days))]
    rows, kind = raw_of(data, day), rng.integers(3)
    first, again = rows, rows
    time = data.config.source.interactions.event_time
    if kind == 1:
        first, again = (rows.withColumn("delivery", F.lit(n)) for n in (1, 2))
    elif kind == 2 and time in rows.columns:
        again = rows.withColumn(time, F.col(time) + F.expr("INTERVAL 1 MINUTE"))
    return delivery(data, day, made_again(data, day, first.unionByName(again), data.known))


def half_catalogue(data: Data, days: list[date], rng: np.random.Generator) -> Delivery | None:
    """Half of the items are not listed; None without a catalogue."""
    if not data.listed:
        return None
    day = days[rng.integers(len(days))]
    full = delivery(data, day)
    assert full.listed is not None
    known = None if data.known is None else data.known.sample(fraction=0.5, seed=int(rng.integers(1 << 30)))
    now = None if known is None else made_again(data, day, raw_of(data, day), known)
    return delivery(data, day, now, listed=np.floor(full.listed / 2))


def yesterday_again(data: Data, days: list[date], rng: np.random.Generator) -> Delivery:
    """The night has no more events than the one before."""
    return delivery(data, days[rng.integers(len(days))], {})


def lost_day(data: Data, days: list[date], rng: np.random.Generator) -> Delivery:
    """A day of the past left the source."""
    day = days[rng.integers(len(days))]
    past = [one for one in data.days if one < day]
    return delivery(data, day, gone=[past[rng.integers(len(past))]])


Fault = Callable[[Data, list[date], np.random.Generator], Delivery | None]
FAULTS: dict[str, Fault] = {
    "number shifted by half a standard deviation": shifted,
    "scenario ids swapped": swapped,
    "events doubled": doubled,
    "scenario missing tonight": missing_tonight,
    "scenario missing everywhere": missing_everywhere,
    "half a catalogue": half_catalogue,
    "yesterday's file again": yesterday_again,
    "a past day lost": lost_day,
}


def drawn(data: Data, days: list[date], rng: np.random.Generator) -> tuple[date, str, pd.DataFrame]:
    """A night and a scenario that has BIG rows or more in it, and the night's events."""
    of = [key for key, x in data.figures.items() if key[0] in days and key[1] != ALL and x["rows"] >= BIG]
    day, scenario = sorted(of)[rng.integers(len(of))]
    return day, scenario, data.events[data.events[c.EVENT_DATE] == day]


def numbers_of(data: Data) -> list[str]:
    return [c.VALUE, *data.config.source.interactions.context]


def values(events: pd.DataFrame, name: str) -> pd.Series:
    if name == c.VALUE:
        return events[c.VALUE]
    return pd.to_numeric(events[c.CONTEXT].map(lambda x: dict(x).get(name)), errors="coerce")


def figures_again(data: Data, day: date, events: pd.DataFrame, changed: dict[str, float] | None = None) -> Figures:
    """Figures of a day with these accepted events; those of the delivery as they were, but `changed`."""
    from recspark.tables.interaction_days import Day

    frame = frame_of(data, events)
    found = of_events(data.config, frame, {day: Day()}, firsts(data, day))
    return {**found, (day, ALL): {**data.figures[day, ALL], **(changed or {})}}


def frame_of(data: Data, events: pd.DataFrame) -> "DataFrame":
    from recspark.tables.interactions import TABLE

    rows = [
        {
            **row,
            c.VALUE: None if pd.isna(row[c.VALUE]) else row[c.VALUE],
            c.EVENT_TIME: row[c.EVENT_TIME].to_pydatetime(),
        }
        for row in events[TABLE.columns].to_dict("records")
    ]
    return data.spark.createDataFrame(rows, TABLE.schema)


def made_again(data: Data, day: date, rows: "DataFrame", known: "DataFrame | None") -> Figures:
    """Figures of a day from its raw rows."""
    _, found = figures_of(data.config, rows, day + timedelta(days=1), known, firsts(data, day))
    return {key: x for key, x in found.items() if key[0] == day}


def firsts(data: Data, day: date) -> "DataFrame":
    """The first events of users and items before a day: all that the figures of later days need of them."""
    old = data.events[data.events[c.EVENT_DATE] < day].sort_values(c.EVENT_TIME)
    kept = pd.concat([old.drop_duplicates([c.SCENARIO, c.USER_ID]), old.drop_duplicates(c.ITEM_ID)])
    return frame_of(data, kept)


def raw_of(data: Data, day: date) -> "DataFrame":
    """The raw rows of a day."""
    from pyspark.sql import functions as F

    return data.rows.where(F.to_date(F.expr(data.config.source.interactions.event_time)) == F.lit(day))
