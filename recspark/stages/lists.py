"""Candidates to ordered lists: the one way in which tonight's lists and the evaluated ones are made.

Scoring looks at rows, so it takes the wide candidates as they lie; only what a list needs is shuffled to its user.
Shapes: n rows, L lists (a user in a scenario).
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.arrays import Array
from recspark.config.schema import RETRIEVERS
from recspark.models.topk import num_before
from recspark.tables.candidates import BECAUSE

POPULAR = "popular_score"  # orders what a retriever has no score for

NARROW = f"{c.SCENARIO} string, {c.USER_IDX} int, {c.ITEM_IDX} int, {c.SOURCE} string, {BECAUSE} int, {POPULAR} float"
NAMES = [part.split()[0] for part in NARROW.split(", ")]


class Scorer(Protocol):
    """Travels to the workers."""

    def columns(self, modes: Sequence[str]) -> Sequence[str]:
        """Columns of candidates that the modes read."""

    def __call__(self, rows: pa.Table, modes: Sequence[str]) -> Mapping[str, Array]:
        """Rows of candidates -> mode -> (n,)"""


def scored(candidates: DataFrame, scorer: Scorer, modes: tuple[str, ...]) -> DataFrame:
    """NARROW columns and one double `score_<mode>` each; partitions, and the order in them, stay.

    A retriever's score is the candidate's own (nan where it has nothing to say); `scorer` is asked for the rest.
    """
    learnt = tuple(mode for mode in modes if mode not in RETRIEVERS)
    own = [F.col(f"{mode}_score").cast("double").alias(f"score_{mode}") for mode in modes if mode in RETRIEVERS]
    names = [*NAMES, *(f"score_{mode}" for mode in modes)]
    if not learnt:
        return candidates.select(*NAMES, *own).select(names)
    ddl = ", ".join((NARROW, *(f"score_{mode} double" for mode in modes)))
    scores = [f"{mode}_score" for mode in modes if mode in RETRIEVERS]
    # Spark would hand the workers every column, row by row
    read = candidates.select(*dict.fromkeys((*NAMES, *scores, *scorer.columns(learnt))))
    return read.mapInArrow(partial(_score, scorer=scorer, modes=modes), ddl)


def _score(batches: Iterator[pa.RecordBatch], scorer: Scorer, modes: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    learnt = tuple(mode for mode in modes if mode not in RETRIEVERS)
    for batch in batches:
        if not batch.num_rows:
            continue
        found = scorer(pa.Table.from_batches([batch]), learnt)
        columns = {name: batch.column(name) for name in NAMES}
        for mode in modes:
            own = batch.column(f"{mode}_score").cast(pa.float64()) if mode in RETRIEVERS else None
            columns[f"score_{mode}"] = own if own is not None else pa.array(np.asarray(found[mode], dtype=np.float64))
        yield pa.record_batch(list(columns.values()), names=list(columns))


def by_user(rows: DataFrame) -> DataFrame:
    """All rows of a user in one partition and one after the other, as `blocks.whole_users` needs them."""
    return rows.repartition(c.USER_IDX).sortWithinPartitions(c.USER_IDX)


def list_numbers(scenario: Array, user_idx: Array) -> tuple[Array, Array]:
    """Dense number of each row's list (n,), in order of user and scenario, and the position of one row of each (L,)."""
    key = dense_numbers(user_idx)[0] * (int(scenario.max(initial=0)) + 1) + scenario
    return dense_numbers(key)


def dense_numbers(values: Array) -> tuple[Array, Array]:
    """Numbers (n,) from 0 in order of value, and the position of one row of each; no sort where sorted."""
    if (values[1:] < values[:-1]).any():
        _, first, at = np.unique(values, return_index=True, return_inverse=True)
        return at, first
    new = np.concatenate((np.ones(min(len(values), 1), bool), values[1:] > values[:-1]))
    return np.cumsum(new) - 1, np.flatnonzero(new)


def final_scores(list_idx: Array, num_lists: int, scores: Array, popular: Array | None, repeat: Array) -> Array:
    """float64 (n,) by which a list is ordered and which it publishes; each list by itself.

    `popular` (n,): given for a retriever's scores, it orders the rows that the retriever is silent on (nan), below all
    others. Without it nan stays nan: a trained model that gives nan is broken, and a check should find it.
    `repeat` bool (n,): items that the user had are moved below the rest.
    """
    final = scores.astype(np.float64)
    if popular is not None and np.isnan(final).any():
        silent = np.isnan(final)
        low = _per_list(np.minimum, list_idx[~silent], final[~silent], num_lists, np.inf)
        low[np.isinf(low)] = 0.0
        final[silent] = low[list_idx[silent]] - 2.0 + _share(list_idx[silent], popular[silent], num_lists)
    _move_below(list_idx, num_lists, final, repeat, ~repeat)
    return final


def limited(
    list_idx: Array,
    num_lists: int,
    final: Array,
    tie_rank: Array,
    repeat: Array,
    code: Array,
    most: Array,
) -> Array:
    """`final` (see `final_scores`) where no more than `most` (n,) of one `code` (n,) come first: of its list's rows in
    their order, what is beyond is moved below the rest, unseen items still above repeats. Code -1 has no limit."""
    order = ordered(list_idx, final, tie_rank)
    keys = list_idx.astype(np.int64) * (int(code.max(initial=-1)) + 2) + code + 1
    before = np.empty(len(order), dtype=np.int64)
    before[order] = num_before(keys[order])
    beyond = (code >= 0) & (before >= most)
    changed = np.isin(list_idx, list_idx[beyond])
    moved, step = final.copy(), 2 * repeat + beyond
    for n in (1, 2, 3):
        _move_below(list_idx, num_lists, moved, changed & (step == n), step < n)
    return moved


def ordered(list_idx: Array, final: Array, tie_rank: Array) -> Array:
    """Positions (n,) of the rows in order of list, then score falling, then item_id (`tie_rank` (n,)); nan last."""
    return np.lexsort((tie_rank, -final, list_idx))


def _move_below(list_idx: Array, num_lists: int, final: Array, moved: Array, rest: Array) -> None:
    """Shift the rows `moved` in place, so that their list's best one is 1 below the lowest of its rows `rest`."""
    if moved.any():
        above = rest & np.isfinite(final)
        low = _per_list(np.minimum, list_idx[above], final[above], num_lists, np.inf)
        high = _per_list(np.fmax, list_idx[moved], final[moved], num_lists, -np.inf)
        shift = np.where(np.isfinite(low) & np.isfinite(high), low - high - 1.0, 0.0)
        final[moved] += shift[list_idx[moved]]


def _per_list(reduce: np.ufunc, list_idx: Array, values: Array, num_lists: int, start: float) -> Array:
    found = np.full(num_lists, start)
    reduce.at(found, list_idx, values)
    return found


def _share(list_idx: Array, values: Array, num_lists: int) -> Array:
    """Values on their list's range, 0 = lowest, 1 = highest; 0 where all are equal or unknown."""
    known = np.nan_to_num(values.astype(np.float64), nan=-1e300, neginf=-1e300)
    real = known > -1e300
    low = _per_list(np.minimum, list_idx[real], known[real], num_lists, np.inf)[list_idx]
    high = _per_list(np.maximum, list_idx[real], known[real], num_lists, -np.inf)[list_idx]
    spread = high > low
    return np.where(real & spread, (known - low) / np.where(spread, high - low, 1.0), 0.0)


def whole_users(batches: Iterator[pa.RecordBatch], min_rows: int = 20_000) -> Iterator[pa.Table]:
    """Tables of at least `min_rows` rows in which no user is cut. The rows must arrive sorted by user_idx.

    Memory: min_rows plus one batch plus the rows of one user.
    """
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        rows += batch.num_rows
        if rows < min_rows:
            continue
        table = pa.Table.from_batches(held)
        users = table.column(c.USER_IDX).to_numpy()
        cut = int(np.searchsorted(users, users[-1], side="left"))  # where the last, perhaps unfinished user begins
        if cut:
            yield table.slice(0, cut).combine_chunks()
        held = table.slice(cut).to_batches()
        rows = table.num_rows - cut
    if held:
        yield pa.Table.from_batches(held).combine_chunks()
