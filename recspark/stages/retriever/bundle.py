"""All retrievers of one date as a model folder (a bundle): fitted on the driver from Spark's sums, read by workers.

Memory: the arrays must fit in the driver and, memory-mapped, in every worker machine. For n items, linear weights take
4 n^2 bytes up to `linear.CLOSED_FORM_ITEMS` and above 8 n `linear.num_neighbours`, content 4 n d, statistics
100 n, and 70 for each scenario group and item with an event.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.retrievers import Linear
from recspark.config.schema import Config
from recspark.encoders.vectors import Storage, vectors_to_array
from recspark.errors import DataError, TrainingError
from recspark.features import ItemStats
from recspark.models.retrievers import content, linear, popular
from recspark.models.retrievers.popular import Popular
from recspark.stages.item_embeddings.encoders import NightEncoder
from recspark.stages.retriever import trained as trained_retrievers
from recspark.stages.retriever.gram import gram
from recspark.stages.retriever.item_stats import item_stats
from recspark.tables import histories as histories_table
from recspark.tables import item_embeddings
from recspark.tables.histories import Group
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store
from recspark.windows import as_of_day

log = logging.getLogger(__name__)

STATS = tuple(field.name for field in fields(ItemStats))


@dataclass(frozen=True)
class Bundle:
    """The retrievers of one date over n items and G scenario groups.

    `scenarios`: raw scenario -> scenario_idx. `groups` (G,): sorted scenario_idx of the rows. `half_life_days`: of the
    exponential decay of a user's input to `linear` and `content`. `linear` (n, n), dense or sparse, or None, `content`
    (n, d), rows of length 1, zeros without content: float32. `trained`: the other retrievers. `known`
    bool (n,): items known at that date. `tie_rank` (n,): their order by item_id. `own`: raw scenario -> bool (n,), its
    items where the rule is `items: own`.
    """

    as_of_day: int
    scenarios: dict[str, int]
    groups: Array
    half_life_days: float
    linear: Array | sp.csr_matrix | None
    popular: Popular
    content: Array
    trained: dict[str, trained_retrievers.TrainedRetriever]
    known: Array
    tie_rank: Array
    own: dict[str, Array]
    stats: ItemStats

    @cached_property
    def has_content(self) -> Array:
        """bool (n,): items with a vector."""
        return np.asarray(self.content.any(axis=1))


@lru_cache(maxsize=2)
def open_bundle(path: str) -> Bundle:
    """Open a bundle, once per process; its arrays are memory-mapped, so the processes of a machine share them."""
    manifest = model_folder.read_manifest(path)
    opened = {name: np.asarray(model_folder.open_array(path, name)) for name in manifest["arrays"]}
    return Bundle(
        as_of_day=manifest["as_of_day"],
        scenarios=manifest["scenarios"],
        groups=opened["groups"],
        half_life_days=manifest["half_life_days"],
        linear=linear.from_arrays(opened, manifest["num_items"]),
        popular=popular.from_arrays(opened),
        content=opened["content"],
        trained={name: trained_retrievers.read(path, name) for name in manifest["trained"]},
        known=opened["known"],
        tie_rank=opened["tie_rank"],
        own={name: opened["own"][i] for i, name in enumerate(manifest["own"])},
        stats=ItemStats(**{name: opened[f"stats_{name}"] for name in STATS}),
    )


def build_bundle(
    store: Store,
    config: Config,
    as_of: date,
    scenarios: list[Group],
    encoders: Sequence[NightEncoder],
    histories_of_all: DataFrame,
    target: str,
) -> None:
    """Fit the retrievers of a date and write their folder.

    `scenarios`: those with an event before the date. `histories_of_all`: from `tables.histories.read_all`, up to this
    date or a later one.

    Raises: DataError without an item, TrainingError if `linear` cannot be fitted.
    """
    settings = config.retriever
    items = _items(store, encoders, as_of)
    num_items = int(pc.max(items[c.ITEM_IDX]).as_py()) + 1
    rows = np.unique([0, *(group.scenario_idx for group in scenarios)]).astype(np.int32)
    histories = histories_table.as_of(histories_of_all, as_of, scenarios, config.scenarios).persist()
    try:
        day = as_of_day(as_of)
        stats, (cell, net) = item_stats(histories, rows, num_items, day, settings.popular.half_life_days)
        gram_II = gram(histories, num_items, day, settings.linear.half_life_days) if settings.linear else None
        if settings.co_occurrence is not None:
            counts_I = stats.counts[-1]
            trained_retrievers.count_pairs(histories, num_items, counts_I, settings.co_occurrence, target)
        # read by the rankers; written here because the histories are in memory now
        histories_table.write_shards(histories, histories_table.shards_folder(store, target))
    finally:
        histories.unpersist()
    of_items, parts = item_arrays(items, num_items, [one.settings.storage for one in encoders])
    arrays = {
        **of_items,
        "groups": rows,
        **popular.to_arrays(popular.fit(cell, net, len(rows), num_items, settings.popular.shrinkage)),
        **{f"stats_{name}": getattr(stats, name) for name in STATS},
    }
    if settings.linear is not None and gram_II is not None:
        arrays |= _linear(gram_II, settings.linear)
    own = _own_items(store, config, as_of, [group.scenario for group in scenarios], items)
    if own:
        arrays["own"] = np.stack(list(own.values()))
    manifest = {
        **_describe(config, as_of, scenarios),
        "num_items": num_items,
        "encoders": [one.version for one in encoders],
        "content_parts": parts,
        "arrays": sorted(arrays),
        "own": list(own),
        "trained": trained_retrievers.names(config),
        "half_life_days": (settings.linear or Linear()).half_life_days,
    }
    model_folder.save(target, manifest, arrays)
    log.info("retriever: as of %s, %s items, %s scenario groups", as_of, num_items, len(rows))


def _describe(config: Config, as_of: date, scenarios: list[Group]) -> dict[str, Any]:
    return {
        "as_of": str(as_of),
        "as_of_day": as_of_day(as_of),
        "scenarios": {group.scenario: group.scenario_idx for group in scenarios},
        "scenario_groups": scenarios,
        "parameters": config.retriever.model_dump(mode="json"),
    }


def _linear(gram_II: sp.csr_matrix, settings: Linear) -> dict[str, Array]:
    try:
        return linear.to_arrays(linear.fit(gram_II, settings.l2))
    except (MemoryError, np.linalg.LinAlgError) as error:
        raise TrainingError(
            f"retriever.linear: {gram_II.shape[0]:,} items with {gram_II.nnz:,} pairs ended in {type(error).__name__} "
            f"({error}); give the driver more memory, raise retriever.linear.l2 (found {settings.l2:g}), or write "
            "`retriever: {linear: null, co_occurrence: {}}`"
        ) from error


def item_arrays(items: pa.Table, num_items: int, storages: Sequence[Storage]) -> tuple[dict[str, Array], list[int]]:
    """`known`, `tie_rank` and `content` of a bundle from rows (item_id, item_idx, embedding_0 ...).

    Every encoder's part of a content vector has the same length, so a cosine is the mean of the encoders' cosines.

    Returns: the arrays, and the width of each encoder's part.
    """
    item_idx = items[c.ITEM_IDX].to_numpy()
    known = np.zeros(num_items, dtype=bool)
    known[item_idx] = True
    tie_rank = np.empty(num_items, dtype=np.int32)
    tie_rank[item_idx[pc.sort_indices(items[c.ITEM_ID]).to_numpy()]] = np.arange(len(item_idx))
    tie_rank[~known] = np.arange(len(item_idx), num_items)
    stored = [vectors_to_array(items[f"{c.EMBEDDING}_{n}"], storage=storage) for n, storage in enumerate(storages)]
    parts = [content.unit(part) for part in stored]
    vectors = content.unit(np.concatenate(parts, axis=1))
    content_ID = np.zeros((num_items, max(1, vectors.shape[1])), dtype=np.float32)  # an empty array cannot be mapped
    content_ID[item_idx, : vectors.shape[1]] = vectors
    widths = [part.shape[1] for part in parts if part.shape[1]]
    return {"known": known, "tie_rank": tie_rank, "content": content_ID}, widths or [1]


def _items(store: Store, encoders: Sequence[NightEncoder], as_of: date) -> pa.Table:
    """(item_id, item_idx, embedding_0 ...) of the items known at the date.

    An embedding is null if that encoder has no vector of the item's present content.
    """
    found: DataFrame = histories_table.known_items(store, as_of)
    rows, items = store.read(item_embeddings.TABLE), store.read(ITEMS)
    names = [f"{c.EMBEDDING}_{n}" for n in range(len(encoders))]
    for one, name in zip(encoders, names, strict=True):
        of_one = rows.where(F.col(c.ENCODER) == F.lit(one.version))
        vectors = of_one.select(c.ITEM_ID, c.CONTENT_HASH, F.col(c.EMBEDDING).alias(name))
        if one.settings.input is not None:
            inputs = item_embeddings.inputs(items, one.settings).select(c.ITEM_ID, c.CONTENT_HASH)
            vectors = vectors.join(inputs, on=[c.ITEM_ID, c.CONTENT_HASH], how="left_semi")
            found = found.join(vectors.drop(c.CONTENT_HASH), on=c.ITEM_ID, how="left")
            continue
        # item_id and encoder are the key of item_embeddings, so the join keeps one row an item
        found = found.join(vectors, on=[c.ITEM_ID, c.CONTENT_HASH], how="left")
    table = found.select(c.ITEM_ID, c.ITEM_IDX, *names).toArrow()
    if not table.num_rows:
        raise DataError(f"no item is known before {as_of} in {store.name(ITEMS.noun)}; run jobs/items.py first")
    return table


def _own_items(store: Store, config: Config, as_of: date, scenarios: list[str], items: pa.Table) -> dict[str, Array]:
    """Scenario -> bool (n,): items with an event there, for scenarios with the rule `items: own`."""
    names = [name for name in scenarios if config.scenarios.rule(name).items == "own"]
    if not names:
        return {}
    events = store.events(INTERACTIONS, None, as_of).where(F.col(c.SCENARIO).isin(names))
    pairs = events.select(c.SCENARIO, c.ITEM_ID).distinct().toArrow()
    item_idx = items[c.ITEM_IDX].to_numpy()
    num_items = int(item_idx.max()) + 1
    at = pc.index_in(pairs[c.ITEM_ID], value_set=items[c.ITEM_ID].combine_chunks())
    own = {name: np.zeros(num_items, dtype=bool) for name in names}
    for name in names:
        mask = pc.and_(pc.equal(pairs[c.SCENARIO], name), pc.is_valid(at))
        own[name][item_idx[pc.filter(at, mask).to_numpy()]] = True
    return own
