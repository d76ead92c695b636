"""How good lists were: NDCG, recall, coverage and AUC of every mode, summed per scenario on the workers.

`list_metrics` is the door for any two tables, of lists and of what users did. Only sums leave a block of users: of the
metrics, of their Poisson bootstrap replicates and of the products that the gate needs. Shapes: n rows, L lists of users
who did something, M modes, C = figures (columns), B replicates.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import metrics
from recspark.arrays import Array
from recspark.config.schema import RETRIEVERS
from recspark.stages import lists
from recspark.stages.lists import whole_users
from recspark.tables.candidates import REPEAT
from recspark.tables.model_metrics import ALL, COLD, EVERYONE, PUBLISHED

BLOCK_ROWS = 100_000
RETRIEVED = "candidates"  # the `model` of what the retrievers found together
MOMENTS = "moments"  # rows for the gate, `model` = half of the users
PARTIAL = "slice string, scenario string, payload binary"
COVERAGE = "coverage"  # comes as a number of distinct items: what is eligible is the caller's knowledge
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
    """What is measured. `learnt`: the modes whose AUC is of interest; `tie_rank` opens (I,) on a worker, None where
    lists have no ties. `at_k`: names of metrics.AT_K; the first one at the first of `cutoffs` is what the gate sees."""

    modes: tuple[str, ...]
    learnt: tuple[str, ...]
    cutoffs: tuple[int, ...]
    num_replicates: int
    seed: int
    tie_rank: Callable[[], Array] | None
    at_k: tuple[str, ...] = ("ndcg", "recall")

    @property
    def ranked(self) -> list[tuple[str, int, str]]:
        """(metric, k, model) of the columns that are about ranks."""
        return [(name, k, mode) for name in self.at_k for k in self.cutoffs for mode in self.modes]

    @property
    def figures(self) -> list[tuple[str, str]]:
        """(model, metric) of the C columns."""
        ranked = [(mode, f"{name}@{k}") for name, k, mode in self.ranked]
        return [*ranked, (RETRIEVED, "recall"), *((mode, "gauc") for mode in self.learnt)]


@dataclass(frozen=True)
class Rows:
    """A block of whole users as arrays: (n,) rows, `found` of which are candidates and the others what a list's user
    did; `item_idx`, `repeat`, `popular` and `scores` of the candidates alone, `done` (d,): `num_done` (n,) of each
    row. `group`: slice and scenario."""

    names: list[tuple[str, str]]
    group: Array
    user_idx: Array
    found: Array
    cold: Array
    item_idx: Array
    repeat: Array
    popular: Array
    scores: dict[str, Array]
    done: Array
    num_done: Array


def list_metrics(recommendations: DataFrame, truth: DataFrame, cutoffs: Sequence[int] = (1, 5, 10, 20)) -> DataFrame:
    """Every metric of metrics.AT_K at every cutoff: (scenario, metric, value, num_users), means over the users who did
    something; who got no list counts as 0.

    `recommendations`: user_id, item_id, rank (from 1); `truth`: user_id, item_id, rows may repeat. A `scenario` in
    both splits the users' lists; without it, and for all scenarios together, it says `__all__`. Integer ids are used
    as they are, others by their 64-bit hash.
    """
    settings = Settings((PUBLISHED,), (), tuple(cutoffs), 0, 0, None, tuple(metrics.AT_K))
    numbered = [
        rows.withColumns({c.USER_IDX: _number(rows, c.USER_ID), c.ITEM_IDX: _number(rows, c.ITEM_ID)})
        for rows in (recommendations, truth)
    ]
    found = ranked_lists(*numbered, settings).where((F.col("model") == PUBLISHED) & F.col("metric").contains("@"))
    return found.select(c.SCENARIO, "metric", "value", "num_users")


def _number(rows: DataFrame, name: str) -> Column:
    whole = rows.schema[name].dataType.typeName() in ("byte", "short", "integer", "long")
    return F.col(name) if whole else F.xxhash64(name)


def ranked_lists(recommendations: DataFrame, truth: DataFrame, settings: Settings) -> DataFrame:
    """`evaluate` for lists that are in order, as mode PUBLISHED: user_idx, item_idx, rank, and user_idx, item_idx; in
    both, if at all, slice and scenario."""
    keys = [name for name in ("slice", c.SCENARIO) if name in recommendations.columns]
    keys += [c.USER_IDX, c.ITEM_IDX]
    found = recommendations.select(*keys, (-F.col(c.RANK)).cast("double").alias(f"score_{PUBLISHED}"))
    return evaluate(together(found, truth.select(*keys)), settings)


def together(found: DataFrame, truth: DataFrame) -> DataFrame:
    """Candidates, and what users did as one row a list, in one table, which `evaluate` takes. Not a row an item: on
    the way to the workers rows are dear and items of an array cheap."""
    keys = [name for name in ("slice", c.SCENARIO, c.USER_IDX) if name in truth.columns]
    cold = [F.bool_or("cold").alias("cold")] if "cold" in truth.columns else []
    done = truth.groupBy(*keys).agg(F.collect_list(c.ITEM_IDX).alias("done"), *cold)
    return found.unionByName(done, allowMissingColumns=True)


def evaluate(rows: DataFrame, settings: Settings) -> DataFrame:
    """Rows of MERGED for every slice and scenario, and the scenario `__all__`.

    `rows`: user_idx, item_idx, `score_<mode>` ..., done (array of item_idx, may repeat); where they matter slice (else
    ALL), scenario (else `__all__` only), source, popular_score, cold (bool). What users did is rows of its own, with
    `done` where candidates have null, so that a purchase that was not retrieved, or of a user without any list, counts.
    Memory: of BLOCK_ROWS rows, and of what as many lists' users did as there are rows in an Arrow batch (10,000).
    """
    needed = ["slice", c.SCENARIO, c.USER_IDX, c.ITEM_IDX, c.SOURCE, lists.POPULAR, "done", "cold"]
    needed += [f"score_{mode}" for mode in settings.modes]
    rows = rows.select(*(name for name in needed if name in rows.columns))
    blocks = lists.by_user(rows).mapInArrow(partial(_partials, settings=settings), PARTIAL)
    # No partial: Spark 4.2 asks for type hints, which a partial cannot answer.
    return blocks.groupBy("slice", c.SCENARIO).applyInArrow(lambda parts: _merge(parts, settings), MERGED)


def _partials(batches: Iterator[pa.RecordBatch], settings: Settings) -> Iterator[pa.RecordBatch]:
    tie_rank = settings.tie_rank() if settings.tie_rank else None
    for table in whole_users(batches, BLOCK_ROWS):
        found = list(measure(_rows(table, settings.modes), settings, tie_rank))
        columns = list(zip(*found, strict=True))
        yield pa.record_batch([pa.array(column) for column in columns], names=["slice", c.SCENARIO, "payload"])


def _rows(table: pa.Table, modes: tuple[str, ...]) -> Rows:
    def optional(rows: pa.Table, name: str, default: object) -> pa.ChunkedArray:
        found = rows[name] if name in rows.column_names else pa.chunked_array([pa.repeat(default, len(rows))])
        return found.fill_null(default)

    keys = pc.binary_join_element_wise(optional(table, "slice", ALL), optional(table, c.SCENARIO, EVERYONE), "\x1f")
    keys = keys.combine_chunks().dictionary_encode()
    done = table["done"]
    candidates = table.filter(pc.is_null(done))
    return Rows(
        names=[tuple(name.split("\x1f", 1)) for name in keys.dictionary.to_pylist()],
        group=keys.indices.to_numpy(),
        user_idx=table[c.USER_IDX].to_numpy(),
        found=pc.is_null(done).to_numpy(),
        cold=optional(table, "cold", False).to_numpy(),
        item_idx=candidates[c.ITEM_IDX].to_numpy(),
        repeat=pc.equal(optional(candidates, c.SOURCE, ""), REPEAT).to_numpy(),
        popular=optional(candidates, lists.POPULAR, math.nan).to_numpy(),
        scores={mode: candidates[f"score_{mode}"].to_numpy() for mode in modes},
        done=pc.list_flatten(done).to_numpy(),
        num_done=pc.list_value_length(done).fill_null(0).to_numpy(),
    )


def measure(rows: Rows, settings: Settings, tie_rank: Array | None) -> Iterator[tuple[str, str, bytes]]:
    """(slice, scenario, payload) of every scenario of a block and of all of them together."""
    of_row, first = lists.list_numbers(rows.group, rows.user_idx)
    num_lists, list_idx = len(first), of_row[rows.found]
    hit, relevant = _hits(list_idx, rows.item_idx, np.repeat(of_row, rows.num_done), rows.done, num_lists)
    block = _Block(
        list_idx, rows.item_idx, hit, metrics.offsets_of(list_idx, num_lists), relevant,
        rows.group[first], rows.user_idx[first], np.bincount(of_row[rows.cold], minlength=num_lists) > 0,
    )  # fmt: skip
    ranked = {}
    for mode, scores in rows.scores.items():
        popular = rows.popular if mode in RETRIEVERS else None
        final = lists.final_scores(list_idx, num_lists, scores, popular, rows.repeat)
        ties = np.zeros(len(final), np.int8) if tie_rank is None else tie_rank[block.item_idx]
        order = lists.ordered(block.list_idx, final, ties)
        ranked[mode] = (final, order)
    yield from _sums(block, rows.names, ranked, settings)


def _hits(list_idx: Array, item_idx: Array, done_list: Array, done: Array, num_lists: int) -> tuple[Array, Array]:
    """Whether each candidate (n,) is among what its list's user did (d,), float64, and how many distinct items (L,)
    that is."""
    low, high = (pick([pick(x, initial=0) for x in (item_idx, done)]) for pick in (np.min, np.max))
    if low < 0 or high >= 2**62 // max(num_lists, 1):
        both = lists.dense_numbers(np.concatenate((item_idx, done)))[0]
        item_idx, done, high = both[: len(item_idx)], both[len(item_idx) :], both.max(initial=0)
    width = int(high) + 1
    true, asked = np.unique(done_list.astype(np.int64) * width + done), list_idx.astype(np.int64) * width + item_idx
    place = np.minimum(np.searchsorted(true, asked), max(len(true) - 1, 0))
    hit = true[place] == asked if len(true) else np.zeros(len(asked), bool)
    return hit.astype(np.float64), np.bincount(true // width, minlength=num_lists)


@dataclass(frozen=True)
class _Block:
    """Candidate rows (list, item, was it a hit) in order of list, and per list: relevant items, group, user, cold."""

    list_idx: Array
    item_idx: Array
    hit: Array
    offsets: Array
    relevant: Array
    group: Array
    user_idx: Array
    cold: Array


Ranked = dict[str, tuple[Array, Array]]  # mode -> final scores (n,), order (n,)


def _sums(
    block: _Block, names: list[tuple[str, str]], ranked: Ranked, settings: Settings
) -> Iterator[tuple[str, str, bytes]]:
    """Draw once, then add up by scenario and, for each slice, over all of its scenarios."""
    values_LC, sizes_LC = _figures(block, ranked, settings)
    active = np.flatnonzero(block.relevant > 0)
    hashes = metrics.hash_users(block.user_idx, settings.seed)
    replicates = metrics.poisson_weights(hashes[active], settings.num_replicates)
    weights = np.column_stack((np.ones(len(active)), replicates))  # column 0 is the plain sum
    half = (hashes >> np.uint64(60)) % np.uint64(2)
    labels = sorted({label for label, _ in names})
    label_of_list = np.array([labels.index(label) for label, _ in names])[block.group]
    groups = {name: block.group == at for at, name in enumerate(names)}
    groups |= {(label, EVERYONE): label_of_list == at for at, label in enumerate(labels)}
    for (label, scenario), members in groups.items():
        at = members[active]
        payload: dict[str, Array] = {}
        for name, chosen in ((ALL, at), (COLD, at & block.cold[active])):
            pick = active[chosen]
            payload[f"values_{name}"] = (values_LC[pick] * sizes_LC[pick]).T @ weights[chosen]
            payload[f"sizes_{name}"] = sizes_LC[pick].T @ weights[chosen]
            payload[f"users_{name}"] = np.array([len(np.unique(block.user_idx[pick]))])
        payload["moments"] = _moments(values_LC[active[at], : len(settings.modes)], half[active[at]])
        payload |= _tops(block, members, ranked, settings)
        yield label, scenario, _pack(payload)


def _figures(block: _Block, ranked: Ranked, settings: Settings) -> tuple[Array, Array]:
    """Figures (L, C) as in `Settings.figures`, and what each counts for in a mean; 0 where it is not defined."""
    by_rank = {mode: block.hit[ranked[mode][1]] for mode in settings.modes}
    places = [metrics.AT_K[name](by_rank[mode], block.offsets, block.relevant, k) for name, k, mode in settings.ranked]
    everything = metrics.recall_at_k(block.hit, block.offsets, block.relevant, max(1, len(block.hit)))
    gauc = [metrics.auc_per_list(block.hit, ranked[mode][0], block.offsets) for mode in settings.learnt]
    values = np.column_stack((*places, everything, *gauc))
    sizes = np.isfinite(values).astype(np.float64)
    rows = np.diff(block.offsets)[:, None]
    sizes[:, values.shape[1] - len(gauc) :] *= rows  # GAUC weighs a list by its rows
    return np.nan_to_num(values), sizes


def _moments(ndcg_LM: Array, half: Array) -> Array:
    """(2, 1 + M + M * M): count, sums and products of the modes' NDCG on each half of the users."""
    found = []
    for side in (0, 1):
        x = ndcg_LM[half == side]
        found.append(np.concatenate(([len(x)], x.sum(axis=0), (x.T @ x).ravel())))
    return np.stack(found)


def _tops(block: _Block, members: Array, ranked: Ranked, settings: Settings) -> dict[str, Array]:
    """Distinct items on top of the members' lists by mode, and the learnt modes' hits by score."""
    sizes = np.diff(block.offsets)
    position = np.arange(len(block.hit)) - np.repeat(block.offsets[:-1], sizes)
    inside = members[block.list_idx]
    found: dict[str, Array] = {}
    for mode in settings.modes:
        scores, order = ranked[mode]
        found[f"top_{mode}"] = np.unique(block.item_idx[order][inside[order] & (position < settings.cutoffs[0])])
        if mode in settings.learnt:
            bins, at = np.unique(metrics.score_bins(scores[inside]), return_inverse=True)
            positive = np.bincount(at, weights=block.hit[inside], minlength=len(bins))
            found[f"bins_{mode}"] = np.stack((bins, positive, np.bincount(at, minlength=len(bins)) - positive))
    return found


def _pack(payload: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **payload)
    return buffer.getvalue()


def _merge(table: pa.Table, settings: Settings) -> pa.Table:
    """Add up the payloads of one slice and scenario and turn them into figures with intervals."""
    parts = [dict(np.load(io.BytesIO(data), allow_pickle=False)) for data in table["payload"].to_pylist()]
    label, scenario = table["slice"][0].as_py(), table[c.SCENARIO][0].as_py()
    found = [{"slice": label, **row} for row in _means(parts, ALL, settings)]
    found += [{"slice": COLD, **row} for row in _means(parts, COLD, settings)] if label == ALL else []
    base = {"slice": label, "num_users": int(sum(part[f"users_{ALL}"][0] for part in parts))}
    for mode in settings.modes:
        top = np.unique(np.concatenate([part[f"top_{mode}"] for part in parts]))
        found.append({**base, "model": mode, "metric": COVERAGE, "value": float(len(top))})
    for mode in settings.learnt:
        value = _merged_auc([part[f"bins_{mode}"] for part in parts])
        found += [{**base, "model": mode, "metric": "auc", "value": value}] if np.isfinite(value) else []
    moments = sum(part["moments"] for part in parts)
    found += [{**base, "model": str(half), "metric": MOMENTS, "data": list(moments[half])} for half in (0, 1)]
    return pa.Table.from_pylist([{**row, c.SCENARIO: scenario} for row in found], MERGED_SCHEMA)


def _means(parts: list[dict[str, Array]], name: str, settings: Settings) -> Iterator[dict[str, object]]:
    """One row a figure; none where nobody was measured."""
    users = int(sum(part[f"users_{name}"][0] for part in parts))
    values, sizes = (sum(part[f"{kind}_{name}"] for part in parts) for kind in ("values", "sizes"))
    with np.errstate(invalid="ignore", divide="ignore"):
        means = values / sizes  # (C, 1 + B)
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
