"""night_statistics: what a night compares with earlier ones before it goes on: figures of each day of events in each
scenario, and of each published night's lists. A row a day and scenario, never a user.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.tables.interaction_days import Day
from recspark.warehouse.store import Table

EVENTS, LISTS, CATALOGUE = "events", "lists", "catalogue"  # kinds of rows
TABLE = Table(
    noun="night_statistics",
    ddl=f"kind string, day date, {c.SCENARIO} string, digest string, statistics map<string,double>",
    key=("kind", "day", c.SCENARIO),
    row="Figures of a day of events in a scenario, or of the lists of a night. Written when nothing was held, or "
    "`--accept` was given; later nights are compared with them.",
    comments={
        "kind": "events, catalogue or lists. Example: events",
        "day": "Day of the events; of the other kinds the run date. Example: 2011-12-09",
        c.SCENARIO: "Scenario; __all__: all together. Example: France",
        "digest": "Hash of a day's raw rows, at __all__; a day with another one is compared again.",
        "statistics": "Figure -> value. Example: {rows -> 1942, users -> 85}",
    },
)
DECILES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
ACCURACY = 1000  # of percentiles: a rank is wrong by at most a thousandth of the rows
LEAST = 20  # rows with a number, from which on it is described
# of a number: rows that have it, mean of its deciles, first decile, last decile less the first
N, MIDDLE, LOW, SPREAD = ":n", ":middle", ":low", ":spread"
EVENT_ROWS = ":rows"  # of an event
OF_SOURCE = "source "  # before a source: the places of lists that it found


def of_days(events: DataFrame, days: Collection[date], numbers: Mapping[str, Column]) -> DataFrame:
    """(day, scenario, statistics) of these days. `events`: all before the night; `numbers`: name -> double or null."""
    day, slot = F.col(c.EVENT_DATE), [c.EVENT_DATE, c.SCENARIO]
    some = events.where(day.isin(list(days)))
    here = events.groupBy(c.SCENARIO, c.USER_ID).agg(F.min(day).alias("here"))
    anywhere = here.groupBy(c.USER_ID).agg(F.min("here").alias("anywhere"))
    first = events.groupBy(c.ITEM_ID).agg(F.min(day).alias("first"))
    # the tables on the right are unique by the columns joined on
    users = some.groupBy(*slot, c.USER_ID).agg(F.count("*").alias("rows"), F.countDistinct(c.ITEM_ID).alias("pairs"))
    users = users.join(here, on=[c.SCENARIO, c.USER_ID], how="inner").join(anywhere, on=c.USER_ID, how="inner")
    by_user = users.groupBy(*slot).agg(
        F.sum("rows").alias("rows"),
        F.sum("pairs").alias("pairs"),
        F.count("*").alias("users"),
        F.count_if(F.col("here") < day).alias("known_users"),
        F.count_if((F.col("here") >= day) & (F.col("anywhere") < day)).alias("moved_users"),
    )
    items = some.groupBy(*slot, c.ITEM_ID).agg(F.count("*").alias("rows")).join(first, on=c.ITEM_ID, how="inner")
    known = F.sum(F.when(F.col("first") < day, F.col("rows")).otherwise(0)).alias("known_item_rows")
    by_item = items.groupBy(*slot).agg(F.count("*").alias("items"), known)
    found = by_user.join(by_item, on=slot, how="inner").join(_of_numbers(some, numbers), on=slot, how="inner")
    names = [name for name in found.columns if name not in (*slot, "numbers")]
    figures = F.map_concat(_map(names), F.col("numbers")).alias("statistics")
    return found.select(day.alias("day"), c.SCENARIO, figures)


def _of_numbers(some: DataFrame, numbers: Mapping[str, Column]) -> DataFrame:
    """(event_date, scenario, numbers): rows of each event, and its numbers where LEAST rows have them."""
    by_event = some.groupBy(c.EVENT_DATE, c.SCENARIO, c.EVENT).agg(
        F.count("*").alias("rows"),
        *(F.count(number).alias(f"n{i}") for i, number in enumerate(numbers.values())),
        *(F.percentile_approx(number, DECILES, ACCURACY).alias(f"d{i}") for i, number in enumerate(numbers.values())),
    )
    entries = [_entry(EVENT_ROWS, "", F.col("rows"))]
    for i, name in enumerate(numbers):
        n, deciles = F.col(f"n{i}"), F.col(f"d{i}")
        middle = F.aggregate(deciles, F.lit(0.0), lambda total, x: total + x) / len(DECILES)
        spread = deciles[len(DECILES) - 1] - deciles[0]
        figures = {N: n, MIDDLE: middle, LOW: deciles[0], SPREAD: spread}
        entries += [F.when(n >= LEAST, _entry(key, f" {name}", figure)) for key, figure in figures.items()]
    listed = by_event.select(c.EVENT_DATE, c.SCENARIO, F.array_compact(F.array(*entries)).alias("numbers"))
    return listed.groupBy(c.EVENT_DATE, c.SCENARIO).agg(
        F.map_from_entries(F.flatten(F.collect_list("numbers"))).alias("numbers")
    )


def _entry(key: str, name: str, figure: Column) -> Column:
    return F.struct(F.concat(F.col(c.EVENT), F.lit(name + key)).alias("key"), figure.cast("double").alias("value"))


def of_deliveries(days: Mapping[date | None, Day]) -> dict[date, dict[str, float]]:
    """Figures of the raw rows of each day, over all scenarios."""
    return {
        day: {
            "raw": float(found.raw),
            "duplicates": float(found.duplicates),
            "merged": float(found.merged),
            "rejected": float(sum(found.rejected.values())),
        }
        for day, found in days.items()
        if day is not None
    }


def of_lists(rows: DataFrame, before: DataFrame | None, sources: Sequence[str]) -> DataFrame:
    """(scenario, statistics) of a night's lists, rows of `recommendations`. `before`: the lists of an earlier night."""
    key = [c.SCENARIO, c.USER_ID]
    kept = F.lit(None).cast("boolean")
    if before is not None:
        old = before.select(*key, c.ITEM_ID, F.lit(True).alias("kept"))
        had = before.select(*key).distinct().withColumn("had", F.lit(True))
        rows = rows.join(old, on=[*key, c.ITEM_ID], how="left").join(had, on=key, how="left")  # unique by their columns
        kept = F.when(F.col("had"), F.coalesce("kept", F.lit(False)))
    found_by = [f"{OF_SOURCE}{source}" for source in sources]
    lists = rows.groupBy(*key).agg(
        F.count("*").alias("rows"),
        F.countDistinct(c.SCORE).alias("scores"),
        F.count(kept).alias("compared"),
        F.count_if(kept).alias("kept"),
        *(F.count_if(F.col(c.SOURCE) == s).alias(name) for s, name in zip(sources, found_by, strict=True)),
    )
    by_item = rows.groupBy(c.SCENARIO, c.ITEM_ID).agg(F.count("*").alias("n")).groupBy(c.SCENARIO)
    items = by_item.agg(F.count("*").alias("items"), F.max("n").alias("top_item_rows"))
    by_list = lists.groupBy(c.SCENARIO).agg(
        F.count("*").alias("lists"),
        F.count_if((F.col("scores") == 1) & (F.col("rows") > 1)).alias("constant"),
        *(F.sum(name).alias(name) for name in ("rows", "scores", "compared", "kept", *found_by)),
    )
    found = by_list.join(items, on=c.SCENARIO, how="inner")
    return found.select(c.SCENARIO, _map(found.columns[1:]).alias("statistics"))


def _map(names: Sequence[str]) -> Column:
    """The columns that are not null, as a map."""
    pairs = F.map_from_arrays(F.array(*map(F.lit, names)), F.array(*(F.col(f"`{n}`").cast("double") for n in names)))
    return F.map_filter(pairs, lambda _, value: value.isNotNull())
