"""Item statistics as of a date: sums of blocks of users in NumPy, added up by Spark for each (group, item)."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark.arrays import Array
from recspark.features import WINDOWS, ItemStats
from recspark.histories import Histories, from_arrow, owners
from recspark.models.retrievers import popular

QUANTUM = 2.0**-40  # decayed weights are rounded to whole multiples of it, so their sum is exact in any order

COUNTS = [f"count_{i}" for i in range(len(WINDOWS))]
NEW = [f"new_{i}" for i in range(len(WINDOWS))]
WHOLE = [*COUNTS, *NEW, "decayed", "price_n", "value_n", "negative", "events"]
REAL = ["price", "value"]
DOUBLES = [*REAL, "first", "last"]
SCHEMA = ", ".join(["cell bigint", *(f"{name} bigint" for name in WHOLE), *(f"{name} double" for name in DOUBLES)])


def item_stats(
    histories: DataFrame, groups: Array, num_items: int, as_of_days: float, half_life_days: float
) -> tuple[ItemStats, tuple[Array, Array]]:
    """Statistics of every item in every group and in all of them together.

    `groups`: sorted scenario_idx (G,). Memory: a row of 200 bytes for each (group, item) with an event comes to the
    driver, and about half of that must fit, memory-mapped, in every worker machine.

    Returns: statistics; and the net counts with exponential decay as arrays `cell`, `net` (C,), sorted.
    """
    run = partial(_partials, groups=groups, num_items=num_items, as_of_days=as_of_days, half_life_days=half_life_days)
    sums = [F.sum(n).alias(n) for n in (*COUNTS, *NEW, *WHOLE[2 * len(WINDOWS) + 1 :], *REAL)]
    decayed = F.sum(F.col("decayed").cast("decimal(38,0)")).cast("double").alias("decayed")
    cells = histories.mapInArrow(run, SCHEMA).groupBy("cell")
    table = cells.agg(*sums, decayed, F.min("first").alias("first"), F.max("last").alias("last")).toArrow()
    return finish({name: table.column(name).to_numpy() for name in table.column_names}, num_items)


def group_rows(scenario_idx: Array, groups: Array) -> Array:
    """Row of each scenario group in arrays that have a row for each of `groups`, which are sorted."""
    return np.searchsorted(groups, scenario_idx)


def partial_sums(
    histories: Histories, rows: Array, num_items: int, as_of_days: float, half_life_days: float
) -> dict[str, Array]:
    """Sums over a block with all events of its users, one entry for each (group, item) in it.

    `rows`: group row of every event.
    """
    h = histories
    cell, at = np.unique(rows.astype(np.int64) * num_items + h.item_idx, return_inverse=True)
    positive, negative = h.weight > 0, h.weight < 0
    new = _first_of_user(h, positive, num_items)
    age = as_of_days - h.time

    def total(values: Array, where: Array) -> Array:
        out = np.zeros(len(cell), dtype=values.dtype)
        np.add.at(out, at[where], values[where])
        return out

    ones = np.ones(len(at), dtype=np.int64)
    sums = {"cell": cell}
    for i, days in enumerate(WINDOWS):
        recent = positive & (age <= days) if days else positive
        sums[COUNTS[i]], sums[NEW[i]] = total(ones, recent), total(ones, recent & new)
    users = len(h.offsets) - 1
    pair, event_pair = np.unique(at * users + owners(h.offsets), return_inverse=True)
    net = popular.net_of_pairs(h.weight, h.time, event_pair, len(pair), as_of_days, half_life_days)
    sums["decayed"] = np.zeros(len(cell), dtype=np.int64)
    np.add.at(sums["decayed"], pair // max(users, 1), np.rint(net / QUANTUM).astype(np.int64))
    sums["negative"], sums["events"] = total(ones, negative), total(ones, ones > 0)
    for name, values in (("price", h.price), ("value", h.value)):
        known = positive & np.isfinite(values)
        sums[name], sums[f"{name}_n"] = total(values.astype(np.float64), known), total(ones, known)
    sums["first"], sums["last"] = np.full(len(cell), np.inf), np.full(len(cell), -np.inf)
    np.minimum.at(sums["first"], at[positive], h.time[positive])
    np.maximum.at(sums["last"], at[positive], h.time[positive])
    return sums


def _first_of_user(h: Histories, positive: Array, num_items: int) -> Array:
    """True for the first positive event of each user with each item; events are in order of time."""
    owner = owners(h.offsets)
    where = np.flatnonzero(positive)
    first = np.zeros(len(owner), dtype=bool)
    first[where[np.unique((owner * num_items + h.item_idx)[where], return_index=True)[1]]] = True
    return first


def finish(sums: dict[str, Array], num_items: int) -> tuple[ItemStats, tuple[Array, Array]]:
    """Statistics from sums by cell = group row * num_items + item, in any order; and cells with decayed net counts."""
    order = np.argsort(sums["cell"])
    sums = {name: values[order] for name, values in sums.items()}
    item = sums["cell"] % num_items

    def total(name: str) -> Array:
        return np.bincount(item, sums[name].astype(np.float64), minlength=num_items)

    def mean(name: str) -> Array:
        count = total(f"{name}_n")
        return np.where(count > 0, total(name) / np.maximum(count, 1), np.nan).astype(np.float32)

    first, last = np.full(num_items, np.inf), np.full(num_items, -np.inf)
    np.minimum.at(first, item, sums["first"])
    np.maximum.at(last, item, sums["last"])
    positive = np.isfinite(sums["first"])
    stats = ItemStats(
        counts=np.stack([total(name) for name in COUNTS]).astype(np.float32),
        new_counts=np.stack([total(name) for name in NEW]).astype(np.float32),
        first_time=np.where(np.isfinite(first), first, np.nan),
        last_time=np.where(np.isfinite(last), last, np.nan),
        price=mean("price"),
        value=mean("value"),
        return_share=(total("negative") / np.maximum(total("events"), 1)).astype(np.float32),
        cells=sums["cell"][positive],
        cell_counts=np.stack([sums[name][positive] for name in COUNTS]).astype(np.float32),
        cell_first=sums["first"][positive],
        cell_last=sums["last"][positive],
    )
    return stats, (sums["cell"], sums["decayed"] * QUANTUM)


def _partials(
    batches: Iterator[pa.RecordBatch], groups: Array, num_items: int, as_of_days: float, half_life_days: float
) -> Iterator[pa.RecordBatch]:
    names = ["cell", *WHOLE, *DOUBLES]
    for batch in batches:
        histories = from_arrow(batch)
        rows = group_rows(histories.scenario_idx, groups)
        sums = partial_sums(histories, rows, num_items, as_of_days, half_life_days)
        yield pa.record_batch([pa.array(sums[name]) for name in names], names=names)
