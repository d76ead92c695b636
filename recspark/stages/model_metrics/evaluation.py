"""How good lists were: NDCG, recall, coverage and AUC of every mode, summed per scenario on the workers.

`list_metrics` is the API for any two tables of lists and of what users did. Each block of users returns only sums: of
the metrics, of their Poisson bootstrap replicates and of the products that the gate needs.
Shapes: n rows, L lists of users who did something, M modes, C = figures (columns), B replicates.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import metrics
from recspark.arrays import Array
from recspark.config.retrievers import RETRIEVERS
from recspark.stages import lists
from recspark.stages.lists import batches_by_user
from recspark.tables.candidates import REPEAT
from recspark.tables.model_metrics import ALL, COLD_ITEMS, EVERYONE, POOR, PUBLISHED

BLOCK_ROWS = 100_000
RETRIEVED = "candidates"  # the `model` of figures about all candidates, whatever their order
MOMENTS = "moments"  # rows with gate.GainMoments
PARTIAL = "slice string, scenario string, payload binary"
COVERAGE = "coverage"  # here a number of distinct items; the caller divides it by the number of eligible items
MERGED_SCHEMA = pa.schema(
    [
        ("slice", pa.string()),
        (c.SCENARIO, pa.string()),
        ("model", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("num_users", pa.int64()),
        ("data", pa.list_(pa.float64())),
    ]
)
MERGED = (
    f"slice string, {c.SCENARIO} string, model string, metric string, value double, lower double, upper double, "
    "num_users bigint, data array<double>"
)


@dataclass(frozen=True)
class Settings:
    """What is measured.

    `trained`: the modes whose AUC and GAUC are computed. `tie_rank`: returns (I,) when called on a worker; None if
    lists have no ties. `fresh`: likewise, returns bool (I,), the items of the slice COLD_ITEMS; None: no such slice.
    `poor`: the scenarios of the slice POOR. `at_k`: names of metrics.AT_K; the gate uses the first of them at the first
    of `cutoffs`, and coverage is of the items within the last.
    """

    modes: tuple[str, ...]
    trained: tuple[str, ...]
    cutoffs: tuple[int, ...]
    num_replicates: int
    seed: int
    tie_rank: Callable[[], Array] | None
    at_k: tuple[str, ...] = ("ndcg", "recall")
    fresh: Callable[[], Array] | None = None
    poor: frozenset[str] = frozenset()

    @property
    def ranked(self) -> list[tuple[str, int, str]]:
        """(metric, k, model) of the columns that depend on ranks."""
        return [(name, k, mode) for name in self.at_k for k in self.cutoffs for mode in self.modes]

    @property
    def figures(self) -> list[tuple[str, str]]:
        """(model, metric) of the C columns."""
        ranked = [(mode, f"{name}@{k}") for name, k, mode in self.ranked]
        return [*ranked, (RETRIEVED, "recall"), *((mode, "gauc") for mode in self.trained)]


@dataclass(frozen=True)
class UserBlock:
    """All rows of a block of users as arrays.

    (n,) each: `group` (position in `names`, pairs of slice and scenario), `user_idx`, `is_candidate` (else the row
    holds what a list's user did), `num_done`. Of the candidate rows only: `item_idx`, `repeat`, `popular`,
    `scores`. `done` (d,): the items of all other rows, `num_done` of each.
    """

    names: list[tuple[str, str]]
    group: Array
    user_idx: Array
    is_candidate: Array
    item_idx: Array
    repeat: Array
    popular: Array
    scores: dict[str, Array]
    done: Array
    num_done: Array

    def in_order(self, order: Array) -> "UserBlock":
        """The same block with its candidates in this order (n,)."""
        scores = {mode: values[order] for mode, values in self.scores.items()}
        item_idx, repeat, popular = (values[order] for values in (self.item_idx, self.repeat, self.popular))
        return replace(self, item_idx=item_idx, repeat=repeat, popular=popular, scores=scores)


def list_metrics(recommendations: DataFrame, truth: DataFrame, cutoffs: Sequence[int] = (1, 5, 10, 20)) -> DataFrame:
    """Every metric of metrics.AT_K at every cutoff, as means over the users in `truth`; a user without a list counts 0.

    `recommendations`: user_id, item_id, rank (from 1). `truth`: user_id, item_id, rows may repeat. If both have a
    column `scenario`, a user has one list in each. Integer ids are used as they are, others by their 64-bit hash.

    Returns: (scenario, metric, value, num_users); scenario `__all__` is all scenarios together.
    """
    settings = Settings((PUBLISHED,), (), tuple(cutoffs), 0, 0, None, tuple(metrics.AT_K))
    found = ranked_lists(_numbered(recommendations), _numbered(truth), settings).where(
        (F.col("model") == PUBLISHED) & F.col("metric").contains("@")
    )
    return found.select(c.SCENARIO, "metric", "value", "num_users")


def _numbered(rows: DataFrame) -> DataFrame:
    return rows.withColumns({c.USER_IDX: _number(rows, c.USER_ID), c.ITEM_IDX: _number(rows, c.ITEM_ID)})


def _number(rows: DataFrame, name: str) -> Column:
    is_integer = rows.schema[name].dataType.typeName() in ("byte", "short", "integer", "long")
    return F.col(name) if is_integer else F.xxhash64(name)


def ranked_lists(recommendations: DataFrame, truth: DataFrame, settings: Settings) -> DataFrame:
    """`evaluate` for lists with ranks, as the mode PUBLISHED.

    `recommendations`: user_idx, item_idx, rank. `truth`: user_idx, item_idx. Both may have slice and scenario.
    """
    keys = [name for name in ("slice", c.SCENARIO) if name in recommendations.columns]
    keys += [c.USER_IDX, c.ITEM_IDX]
    found = recommendations.select(*keys, (-F.col(c.RANK)).cast("double").alias(f"score_{PUBLISHED}"))
    return evaluate(with_truth(found, truth.select(*keys)), settings)


def with_truth(found: DataFrame, truth: DataFrame) -> DataFrame:
    """Candidates and what users did in one table, the input of `evaluate`.

    What users did is one row a list with an array of items: rows are slow to send to the workers, array elements fast.
    """
    keys = [name for name in ("slice", c.SCENARIO, c.USER_IDX) if name in truth.columns]
    done = truth.groupBy(*keys).agg(F.collect_list(c.ITEM_IDX).alias("done"))
    return found.unionByName(done, allowMissingColumns=True)


def evaluate(rows: DataFrame, settings: Settings) -> DataFrame:
    """Rows of MERGED for every slice and scenario, and the scenario `__all__`.

    `rows`: user_idx, item_idx, `score_<mode>` ..., done (array of item_idx, may repeat); optional slice (else ALL),
    scenario (else `__all__` only), source, popular_score. A row is either a candidate, with null in
    `done`, or what a list's user did; so a purchase counts that was not retrieved, or of a user without any list.
    Memory: BLOCK_ROWS rows, and the arrays `done` of one Arrow batch (10,000 rows).
    """
    needed = ["slice", c.SCENARIO, c.USER_IDX, c.ITEM_IDX, c.SOURCE, lists.POPULAR, "done"]
    needed += [f"score_{mode}" for mode in settings.modes]
    rows = rows.select(*(name for name in needed if name in rows.columns))
    blocks = lists.by_user(rows).mapInArrow(partial(_partials, settings=settings), PARTIAL)
    # Not a partial: Spark 4.2 reads the function's type hints, which a partial does not have.
    return blocks.groupBy("slice", c.SCENARIO).applyInArrow(lambda parts: _merge(parts, settings), MERGED)


def _partials(batches: Iterator[pa.RecordBatch], settings: Settings) -> Iterator[pa.RecordBatch]:
    tie_rank = settings.tie_rank() if settings.tie_rank else None
    fresh = settings.fresh() if settings.fresh else None
    for table in batches_by_user(batches, BLOCK_ROWS):
        payloads = list(measure(_user_block(table, settings.modes), settings, tie_rank, fresh))
        columns = list(zip(*payloads, strict=True))
        yield pa.record_batch([pa.array(column) for column in columns], names=["slice", c.SCENARIO, "payload"])


def _user_block(table: pa.Table, modes: tuple[str, ...]) -> UserBlock:
    def optional(rows: pa.Table, name: str, default: object) -> pa.ChunkedArray:
        column = rows[name] if name in rows.column_names else pa.chunked_array([pa.repeat(default, len(rows))])
        return column.fill_null(default)

    keys = pc.binary_join_element_wise(optional(table, "slice", ALL), optional(table, c.SCENARIO, EVERYONE), "\x1f")
    keys = keys.combine_chunks().dictionary_encode()
    done = table["done"]
    candidates = table.filter(pc.is_null(done))
    return UserBlock(
        names=[tuple(name.split("\x1f", 1)) for name in keys.dictionary.to_pylist()],
        group=keys.indices.to_numpy(),
        user_idx=table[c.USER_IDX].to_numpy(),
        is_candidate=pc.is_null(done).to_numpy(),
        item_idx=candidates[c.ITEM_IDX].to_numpy(),
        repeat=pc.equal(optional(candidates, c.SOURCE, ""), REPEAT).to_numpy(),
        popular=optional(candidates, lists.POPULAR, math.nan).to_numpy(),
        scores={mode: candidates[f"score_{mode}"].to_numpy() for mode in modes},
        done=pc.list_flatten(done).to_numpy(),
        num_done=pc.list_value_length(done).fill_null(0).to_numpy(),
    )


def measure(
    rows: UserBlock, settings: Settings, tie_rank: Array | None, fresh: Array | None = None
) -> Iterator[tuple[str, str, bytes]]:
    """(slice, scenario, payload) of every scenario of a block, and of each slice's scenarios together."""
    of_row, first = lists.list_numbers(rows.group, rows.user_idx)
    num_lists, list_idx = len(first), of_row[rows.is_candidate]
    done_list = np.repeat(of_row, rows.num_done)
    if (list_idx[1:] < list_idx[:-1]).any():  # the rows of a user's lists may lie mixed
        by_list = np.argsort(list_idx, kind="stable")
        list_idx, rows = list_idx[by_list], rows.in_order(by_list)
    hit, relevant = _hits(list_idx, rows.item_idx, done_list, rows.done, num_lists)
    offsets = metrics.offsets_of(list_idx, num_lists)
    block = _Block(list_idx, rows.item_idx, hit, offsets, relevant, rows.group[first], rows.user_idx[first])
    blocks = {ALL: block}
    if fresh is not None:
        # an item that came after `fresh` was made is fresh too
        is_fresh = np.append(fresh, True)[np.minimum(rows.done, len(fresh))]
        hit, relevant = _hits(list_idx, rows.item_idx, done_list[is_fresh], rows.done[is_fresh], num_lists)
        blocks[COLD_ITEMS] = replace(block, hit=hit, relevant=relevant)
    ranked = {}
    for mode, scores in rows.scores.items():
        popular = rows.popular if mode in RETRIEVERS else None
        final = lists.final_scores(list_idx, num_lists, scores, popular, rows.repeat)
        ties = np.zeros(len(final), np.int8) if tie_rank is None else tie_rank[block.item_idx]
        order = lists.ordered(block.list_idx, final, ties)
        ranked[mode] = (final, order)
    yield from _sums(blocks, rows.names, ranked, settings)


def _hits(list_idx: Array, item_idx: Array, done_list: Array, done: Array, num_lists: int) -> tuple[Array, Array]:
    """Hits: is each candidate among what its list's user did?

    `done_list`, `done` (d,): list and item of what users did.
    Returns: float64 (n,) 1 for a hit; and the number of distinct items done in each list (L,).
    """
    low, high = (pick([pick(x, initial=0) for x in (item_idx, done)]) for pick in (np.min, np.max))
    if low < 0 or high >= 2**62 // max(num_lists, 1):
        both = lists.dense_numbers(np.concatenate((item_idx, done)))[0]
        item_idx, done, high = both[: len(item_idx)], both[len(item_idx) :], both.max(initial=0)
    width = int(high) + 1
    true, keys = np.unique(done_list.astype(np.int64) * width + done), list_idx.astype(np.int64) * width + item_idx
    place = np.minimum(np.searchsorted(true, keys), max(len(true) - 1, 0))
    hit = true[place] == keys if len(true) else np.zeros(len(keys), bool)
    return hit.astype(np.float64), np.bincount(true // width, minlength=num_lists)


@dataclass(frozen=True)
class _Block:
    """Candidates in order of list, (n,) each: list, item, hit. For each list, (L,): number of relevant items, group,
    user."""

    list_idx: Array
    item_idx: Array
    hit: Array
    offsets: Array
    relevant: Array
    group: Array
    user_idx: Array


Ranked = dict[str, tuple[Array, Array]]  # mode -> final scores (n,), order (n,)


def _sums(
    blocks: dict[str, _Block], names: list[tuple[str, str]], ranked: Ranked, settings: Settings
) -> Iterator[tuple[str, str, bytes]]:
    """Sums of the figures and their bootstrap replicates, by scenario and, for each slice, over all its scenarios.

    `blocks`: ALL, and COLD_ITEMS with the same rows but other hits, where that is measured.
    """
    group, user_idx = blocks[ALL].group, blocks[ALL].user_idx
    hashes = metrics.hash_users(user_idx, settings.seed)
    groups = {name: group == at for at, name in enumerate(names)}
    labels = [label for label, _ in names]
    together = {(label, EVERYONE): np.array([label == one for one in labels]) for label in dict.fromkeys(labels)}
    if settings.poor:
        together[POOR, EVERYONE] = np.array([label == ALL and scenario in settings.poor for label, scenario in names])
    groups |= {name: members[group] for name, members in together.items() if members.any()}
    payloads: dict[tuple[str, str], dict[str, Array]] = {name: {} for name in groups}
    for part, block in blocks.items():
        values_LC, sizes_LC = _figures(block, ranked, settings)
        active = np.flatnonzero(block.relevant > 0)
        replicates = metrics.poisson_weights(hashes[active], settings.num_replicates)
        weights = np.column_stack((np.ones(len(active)), replicates))  # column 0 is the plain sum
        for name, members in groups.items():
            payload, at = payloads[name], members[active]
            pick = active[at]
            payload[f"values_{part}"] = (values_LC[pick] * sizes_LC[pick]).T @ weights[at]
            payload[f"sizes_{part}"] = sizes_LC[pick].T @ weights[at]
            payload[f"users_{part}"] = np.array([len(np.unique(user_idx[pick]))])
            if part == ALL:
                payload["moments"] = _gain_moments(values_LC[pick, : len(settings.modes)])
                payload |= _distinct_items_and_bins(block, members, ranked, settings)
    for (label, scenario), payload in payloads.items():
        yield label, scenario, _pack(payload)


def _figures(block: _Block, ranked: Ranked, settings: Settings) -> tuple[Array, Array]:
    """Figures (L, C), see `Settings.figures`, and the weight of each in a mean, 0 if it is not defined."""
    by_rank = {mode: block.hit[ranked[mode][1]] for mode in settings.modes}
    places = [metrics.AT_K[name](by_rank[mode], block.offsets, block.relevant, k) for name, k, mode in settings.ranked]
    retrieved = metrics.recall_at_k(block.hit, block.offsets, block.relevant, max(1, len(block.hit)))
    gauc = [metrics.auc_per_list(block.hit, ranked[mode][0], block.offsets) for mode in settings.trained]
    values = np.column_stack((*places, retrieved, *gauc))
    sizes = np.isfinite(values).astype(np.float64)
    rows = np.diff(block.offsets)[:, None]
    sizes[:, values.shape[1] - len(gauc) :] *= rows  # GAUC weighs a list by its rows
    return np.nan_to_num(values), sizes


def _gain_moments(ndcg_LM: Array) -> Array:
    """The values of gate.GainMoments: count, sums and products of the modes' NDCG, float64 (1 + M + M * M,)."""
    return np.concatenate(([len(ndcg_LM)], ndcg_LM.sum(axis=0), (ndcg_LM.T @ ndcg_LM).ravel()))


def _distinct_items_and_bins(block: _Block, members: Array, ranked: Ranked, settings: Settings) -> dict[str, Array]:
    """The distinct items at the top of the members' lists, by mode; for trained modes also hits and misses by score."""
    sizes = np.diff(block.offsets)
    position = np.arange(len(block.hit)) - np.repeat(block.offsets[:-1], sizes)
    inside = members[block.list_idx]
    payload: dict[str, Array] = {}
    for mode in settings.modes:
        scores, order = ranked[mode]
        payload[f"top_{mode}"] = np.unique(block.item_idx[order][inside[order] & (position < settings.cutoffs[-1])])
        if mode in settings.trained:
            bins, at = np.unique(metrics.score_bins(scores[inside]), return_inverse=True)
            positive = np.bincount(at, weights=block.hit[inside], minlength=len(bins))
            payload[f"bins_{mode}"] = np.stack((bins, positive, np.bincount(at, minlength=len(bins)) - positive))
    return payload


def _pack(payload: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **payload)
    return buffer.getvalue()


def _merge(table: pa.Table, settings: Settings) -> pa.Table:
    """Rows of MERGED from the payloads of one slice and scenario: figures with intervals, and the gate's moments."""
    parts = [dict(np.load(io.BytesIO(data), allow_pickle=False)) for data in table["payload"].to_pylist()]
    label, scenario = table["slice"][0].as_py(), table[c.SCENARIO][0].as_py()
    found = [{"slice": label, **row} for row in _means(parts, ALL, settings)]
    if label == ALL and settings.fresh is not None:
        found += [{"slice": COLD_ITEMS, **row} for row in _means(parts, COLD_ITEMS, settings)]
    base = {"slice": label, "num_users": int(sum(part[f"users_{ALL}"][0] for part in parts))}
    for mode in settings.modes:
        top = np.unique(np.concatenate([part[f"top_{mode}"] for part in parts]))
        found.append({**base, "model": mode, "metric": COVERAGE, "value": float(len(top))})
    for mode in settings.trained:
        value = _merged_auc([part[f"bins_{mode}"] for part in parts])
        found += [{**base, "model": mode, "metric": "auc", "value": value}] if np.isfinite(value) else []
    moments = sum(part["moments"] for part in parts)
    found.append({**base, "model": "", "metric": MOMENTS, "data": list(moments)})
    return pa.Table.from_pylist([{**row, c.SCENARIO: scenario} for row in found], MERGED_SCHEMA)


def _means(parts: list[dict[str, Array]], name: str, settings: Settings) -> Iterator[dict[str, object]]:
    """One row for each figure; no row if no user was measured."""
    users = int(sum(part[f"users_{name}"][0] for part in parts))
    values, sizes = (np.sum([part[f"{kind}_{name}"] for part in parts], axis=0) for kind in ("values", "sizes"))
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Array = values / sizes  # (C, 1 + B)
    for (model, metric), row in zip(settings.figures, means, strict=True):
        if np.isfinite(row[0]):
            lower, upper = metrics.interval(row[1:])
            figure = {"value": float(row[0]), "lower": lower, "upper": upper}
            yield {"model": model, "metric": metric, **figure, "num_users": users}


def _merged_auc(parts: list[Array]) -> float:
    bins, positive, negative = np.concatenate(parts, axis=1)
    values, at = np.unique(bins, return_inverse=True)
    counts = (np.bincount(at, weights=weights, minlength=len(values)) for weights in (positive, negative))
    return metrics.auc_of_counts(*counts)
