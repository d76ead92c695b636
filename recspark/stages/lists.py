"""From candidates to ordered lists: the one code for tonight's lists and for the evaluated ones.

Scoring works row by row, so the wide candidates are scored where they are stored; only the columns that ordering needs
are shuffled by user.
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
from recspark.config.retrievers import RETRIEVERS
from recspark.histories import per_list
from recspark.models.topk import num_before
from recspark.tables.candidates import EXPLAINING_ITEM

POPULAR = "popular_score"  # orders the rows that a retriever did not score

NARROW = (
    f"{c.SCENARIO} string, {c.USER_IDX} int, {c.ITEM_IDX} int, {c.SOURCE} string, {EXPLAINING_ITEM} int, "
    f"{POPULAR} float"
)
NAMES = [part.split()[0] for part in NARROW.split(", ")]


class Scorer(Protocol):
    """Scores candidates by trained modes; pickled to the workers."""

    def columns(self, modes: Sequence[str]) -> Sequence[str]:
        """Columns of candidates that the modes read."""

    def __call__(self, rows: pa.Table, modes: Sequence[str]) -> Mapping[str, Array]:
        """Scores of candidates: mode -> (n,)."""


def scored(candidates: DataFrame, scorer: Scorer, modes: tuple[str, ...]) -> DataFrame:
    """Candidates with the NARROW columns and a double `score_<mode>` for each mode, in the same partitions and order.

    A retriever's scores are columns of the candidates (NaN: not scored); `scorer` computes those of trained modes.
    """
    trained = tuple(mode for mode in modes if mode not in RETRIEVERS)
    own = [F.col(f"{mode}_score").cast("double").alias(f"score_{mode}") for mode in modes if mode in RETRIEVERS]
    names = [*NAMES, *(f"score_{mode}" for mode in modes)]
    if not trained:
        return candidates.select(*NAMES, *own).select(names)
    ddl = ", ".join((NARROW, *(f"score_{mode} double" for mode in modes)))
    scores = [f"{mode}_score" for mode in modes if mode in RETRIEVERS]
    # only the columns that are read: Spark would send all of them to the workers
    read = candidates.select(*dict.fromkeys((*NAMES, *scores, *scorer.columns(trained))))
    return read.mapInArrow(partial(_score, scorer=scorer, modes=modes), ddl)


def _score(batches: Iterator[pa.RecordBatch], scorer: Scorer, modes: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    trained = tuple(mode for mode in modes if mode not in RETRIEVERS)
    for batch in batches:
        if not batch.num_rows:
            continue
        scores = scorer(pa.Table.from_batches([batch]), trained)
        columns = {name: batch.column(name) for name in NAMES}
        for mode in modes:
            own = batch.column(f"{mode}_score").cast(pa.float64()) if mode in RETRIEVERS else None
            columns[f"score_{mode}"] = own if own is not None else pa.array(np.asarray(scores[mode], dtype=np.float64))
        yield pa.record_batch(list(columns.values()), names=list(columns))


def by_user(rows: DataFrame) -> DataFrame:
    """Put all rows of a user in one partition, next to each other, as `batches_by_user` needs them."""
    return rows.repartition(c.USER_IDX).sortWithinPartitions(c.USER_IDX)


def list_numbers(scenario: Array, user_idx: Array) -> tuple[Array, Array]:
    """Dense number of each row's list (n,), in order of user and scenario, and the position of one row of each (L,)."""
    key = dense_numbers(user_idx)[0] * (int(scenario.max(initial=0)) + 1) + scenario
    return dense_numbers(key)


def dense_numbers(values: Array) -> tuple[Array, Array]:
    """Number each distinct value from 0 in sorted order (n,), and the position of one row of each; sorts if needed."""
    if (values[1:] < values[:-1]).any():
        _, first, at = np.unique(values, return_index=True, return_inverse=True)
        return at, first
    new = np.concatenate((np.ones(min(len(values), 1), bool), values[1:] > values[:-1]))
    return np.cumsum(new) - 1, np.flatnonzero(new)


def final_scores(list_idx: Array, num_lists: int, scores: Array, popular: Array | None, repeat: Array) -> Array:
    """The scores that order a list and are published, computed for each list on its own.

    `popular` (n,): for a retriever's scores; rows that it did not score (NaN) come below all others, by popularity.
    Without it NaN stays NaN: a trained model that returns NaN is broken, and the checks before publication find it.
    `repeat` bool (n,): items that the user interacted with before are moved below the rest.

    Returns: float64 (n,).
    """
    final = scores.astype(np.float64)
    if popular is not None and np.isnan(final).any():
        missing = np.isnan(final)
        low = per_list(np.minimum, final[~missing], list_idx[~missing], num_lists, np.inf)
        low[np.isinf(low)] = 0.0
        final[missing] = low[list_idx[missing]] - 2.0 + _share(list_idx[missing], popular[missing], num_lists)
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
    """Scores that keep a list to at most `most` items of one `code`: items over the limit are moved below the others.

    So they are used only if fewer than k others remain; among them too, unseen items come before repeats.
    `final` (n,): see `final_scores`. `code`, `most` (n,): the value of `at_most.of` of each row's item, -1 for no
    limit, and how many items of it the list may hold.

    Returns: float64 (n,).
    """
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
    """Positions (n,) of the rows in order of list, descending score, then item_id (`tie_rank` (n,)); NaN last."""
    return np.asarray(np.lexsort((tie_rank, -final, list_idx)))


def _move_below(list_idx: Array, num_lists: int, final: Array, moved: Array, rest: Array) -> None:
    """Lower the scores of the rows `moved`, in place: in each list the best of them is 1 below the lowest of `rest`."""
    if moved.any():
        above = rest & np.isfinite(final)
        low = per_list(np.minimum, final[above], list_idx[above], num_lists, np.inf)
        high = per_list(np.fmax, final[moved], list_idx[moved], num_lists, -np.inf)
        shift = np.where(np.isfinite(low) & np.isfinite(high), low - high - 1.0, 0.0)
        final[moved] += shift[list_idx[moved]]


def _share(list_idx: Array, values: Array, num_lists: int) -> Array:
    """Scale values to their list's range, 0 = lowest, 1 = highest; 0 if all are equal or unknown."""
    known = np.nan_to_num(values.astype(np.float64), nan=-1e300, neginf=-1e300)
    real = known > -1e300
    low = per_list(np.minimum, known[real], list_idx[real], num_lists, np.inf)[list_idx]
    high = per_list(np.maximum, known[real], list_idx[real], num_lists, -np.inf)[list_idx]
    spread = high > low
    return np.where(real & spread, (known - low) / np.where(spread, high - low, 1.0), 0.0)


def batches_by_user(batches: Iterator[pa.RecordBatch], min_rows: int = 20_000) -> Iterator[pa.Table]:
    """Tables of at least `min_rows` rows, each with all rows of its users. The input must be sorted by user_idx.

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
        cut = int(np.searchsorted(users, users[-1], side="left"))  # the last user may go on in the next batch
        if cut:
            yield table.slice(0, cut).combine_chunks()
        held = table.slice(cut).to_batches()
        rows = table.num_rows - cut
    if held:
        yield pa.Table.from_batches(held).combine_chunks()
