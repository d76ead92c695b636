"""What changed between two published nights: configuration, inputs, models, the gate's choices, metrics, lists.

All but the lists is read without Spark (see status.rows). The lists of both nights are compared by Spark.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.session import get_session
from recspark.stages import status
from recspark.tables import model_metrics, recommendations
from recspark.warehouse.store import Store

MOST = 40  # lines of one part


def lines(config: Config, before: str, after: str) -> Iterator[str]:
    """The report, line by line. `before`, `after`: run dates.

    Raises: DataError if one of them has no published lists.
    """
    old, new = (_run(config, night) for night in (before, after))
    yield f"{before}: run {old[c.RUN_ID]}, {old[c.REASON]}"
    yield f"{after}: run {new[c.RUN_ID]}, {new[c.REASON]}"
    hashes = old["config_hash"], new["config_hash"]
    yield f"configuration: {'the same' if hashes[0] == hashes[1] else f'changed, hash {hashes[0]} -> {hashes[1]}'}"
    for part in ("input_versions", "model_versions"):
        yield from _versions(part.replace("_versions", "s"), dict(old[part] or {}), dict(new[part] or {}))
    yield from _choices(status.decisions(config, before), status.decisions(config, after))
    yield from _metrics(_overall(config, before), _overall(config, after))
    yield from _lists(config, before, after)


def _run(config: Config, night: str) -> Mapping[str, Any]:
    found = status.newest_published(config, night)
    if found is None:
        newest = status.newest_published(config)
        last = f"the newest is {newest[c.RUN_DATE]}" if newest else "no night is"
        raise DataError(f"no lists of {night} are published in {config.catalog or config.warehouse}; {last}")
    return found


def _versions(what: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    changed = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    yield f"{what}: {len({*old, *new}) - len(changed)} the same, {len(changed)} changed"
    yield from (f"  {name}: {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in changed)


def _choices(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The scenarios whose lists another mode orders, with the gate's reason."""
    both = {name: (old.get(name), new.get(name)) for name in {*old, *new}}
    modes = {name: tuple(row[c.MODEL] if row else "none" for row in pair) for name, pair in both.items()}
    changed = sorted(name for name, (one, other) in modes.items() if one != other)
    yield f"modes: the same in {len(modes) - len(changed)} scenarios, another in {len(changed)}"
    for name in changed[:MOST]:
        why = new[name]["note"] if name in new else "the scenario has no lists any more"
        yield f"  {name}: {modes[name][0]} -> {modes[name][1]}: {why}"
    yield from _more(len(changed))


def _overall(config: Config, night: str) -> dict[tuple[str, str], float]:
    """(metric, model) -> value over all lists of all scenarios."""
    wanted = (c.RUN_DATE, c.SCENARIO, c.MODEL, "slice", "metric", "value")
    found = status.rows(config, model_metrics.TABLE, wanted, (c.RUN_DATE, night))
    return {
        (row["metric"], row[c.MODEL]): row["value"]
        for row in found
        if row[c.SCENARIO] == model_metrics.EVERYONE and row["slice"] == model_metrics.ALL
    }


def _metrics(old: Mapping[tuple[str, str], float], new: Mapping[tuple[str, str], float]) -> Iterator[str]:
    yield "metrics over all scenarios, on the newest closed window of each night:"
    keys = sorted({*old, *new})
    for metric, model in keys[:MOST]:
        values = [f"{found[metric, model]:.4f}" if (metric, model) in found else "none" for found in (old, new)]
        yield f"  {metric} {model}: {values[0]} -> {values[1]}"
    yield from _more(len(keys))


def _more(found: int) -> Iterator[str]:
    if found > MOST:
        yield f"  and {found - MOST} more"


def _lists(config: Config, before: str, after: str) -> Iterator[str]:
    spark, _ = get_session(config.spark, s3=config.is_on_s3)
    rows = Store(spark, config, "diff").read(recommendations.TABLE)
    by_date = [rows.where(F.col(c.RUN_DATE) == F.lit(night).cast("date")) for night in (before, after)]
    found = sorted(compare(*by_date).collect(), key=lambda row: (row.same is None, row.same, row[c.SCENARIO]))
    both, gone, new = (sum(row[name] for row in found) for name in ("both", "gone", "new"))
    yield f"lists: {both:,} in both nights, {gone:,} only before, {new:,} only after"
    yield from map(_of_scenario, found[:MOST])
    yield from _more(len(found))


def _of_scenario(row: Row) -> str:
    numbers = f"{row.both:,} lists in both, {row.gone:,} only before, {row.new:,} only after"
    if row.same is None:
        return f"  {row[c.SCENARIO]}: {numbers}"
    shares = f"{row.same:.1%} of the items and {row['first']:.1%} of the first places are the same"
    return f"  {row[c.SCENARIO]}: {shares}; {numbers}"


def compare(before: DataFrame, after: DataFrame) -> DataFrame:
    """(scenario, both, gone, new, same, first): for each scenario, how many lists are in both nights or in one only; of
    the lists in both, the share of their items that are in both, and of those with the same item at rank 1."""
    keys = [c.SCENARIO, c.USER_ID, c.ITEM_ID]
    old = before.select(*keys, F.col(c.RANK).alias("old"))
    new = after.select(*keys, F.col(c.RANK).alias("new"))
    # an item stands once in a list, so no row is doubled
    items = old.join(new, on=keys, how="full")
    lists = items.groupBy(c.SCENARIO, c.USER_ID).agg(
        F.count("old").alias("num_old"),
        F.count("new").alias("num_new"),
        F.count_if(F.col("old").isNotNull() & F.col("new").isNotNull()).alias("num_same"),
        F.max((F.col("old") == 1) & (F.col("new") == 1)).alias("first"),
    )
    is_both = (F.col("num_old") > 0) & (F.col("num_new") > 0)
    size = F.greatest("num_old", "num_new")
    return lists.groupBy(c.SCENARIO).agg(
        F.count_if(is_both).alias("both"),
        F.count_if(F.col("num_new") == 0).alias("gone"),
        F.count_if(F.col("num_old") == 0).alias("new"),
        (F.sum(F.when(is_both, F.col("num_same"))) / F.sum(F.when(is_both, size))).alias("same"),
        F.avg(F.when(is_both, F.coalesce(F.col("first"), F.lit(False)).cast("int"))).alias("first"),
    )
