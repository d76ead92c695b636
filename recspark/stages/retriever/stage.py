"""retriever: what recommends without a ranker, as of tonight and of every past date that the ranker learns from.

One folder a date, and in it one for each of `learnt_retrievers`. Arrays over item_idx must fit in the driver and,
memory-mapped, in every worker machine: linear weights take 4 n^2 bytes, content 4 n d, statistics 4 n x groups x 12.
"""

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.content import Encoder
from recspark.config.schema import Config, Linear
from recspark.encoders.vectors import Storage, vectors_to_array
from recspark.errors import ConfigError, DataError
from recspark.features import ItemStats
from recspark.models.retrievers import co_occurrence, content, linear, popular
from recspark.stages import item_rules as rules
from recspark.stages.item_embeddings import facts as fact_embeddings
from recspark.stages.retriever import trained as learnt_retrievers
from recspark.stages.retriever.gram import gram
from recspark.stages.retriever.item_stats import item_stats
from recspark.summary import Summary
from recspark.tables import histories as histories_table
from recspark.tables import item_embeddings
from recspark.tables.histories import Group
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store
from recspark.windows import as_of_day, closed_windows

log = logging.getLogger(__name__)

STATS = tuple(field.name for field in fields(ItemStats))


@dataclass(frozen=True)
class Bundle:
    """The retrievers of one date over n items and G scenario groups; `ItemStats` has G + 1 rows.

    `half_life_days`: how fast a user's input to `linear` and `content` fades. `linear` (n, n) or None, `popular`
    (G, n), `content` (n, d; rows at length 1, zeros without content) float32; `learnt`: the other retrievers; `known`
    (n,) bool: items of that date; `tie_rank` (n,): their order by item_id; `groups` (G,): sorted scenario_idx of the
    rows; `scenarios`: raw scenario -> scenario_idx; `own`: raw scenario -> bool (n,), where the rule is `items: own`.
    """

    as_of_day: int
    scenarios: dict[str, int]
    groups: Array
    half_life_days: float
    linear: Array | None
    popular: Array
    content: Array
    learnt: dict[str, learnt_retrievers.Learnt]
    known: Array
    tie_rank: Array
    own: dict[str, Array]
    stats: ItemStats


def as_ofs(run_date: date, config: Config) -> tuple[date, ...]:
    """Tonight, then the past dates with a closed label window, newest first."""
    settings = config.training_examples
    return (run_date, *closed_windows(run_date, settings.label_days, settings.num_windows))


def folder(store: Store, config: Config, as_of: date) -> str:
    """Where the bundle of a date lies: named by its inputs, so that another night finds it again."""
    encoders = fact_embeddings.encoders(store, config)
    settings = config.of_past_dates().digest("retriever", "scenarios", "interactions", "seed")
    # attributes are what rules read: a stock that changes every night must not rebuild the past, unless it is embedded
    unread = () if any(one.input for one in config.item_embeddings.all) else (c.ATTRIBUTES,)
    items = store.digest(ITEMS, c.FIRST_SEEN, as_of, without=unread)
    inputs = (store.digest(INTERACTIONS, c.EVENT_DATE, as_of), items)
    return f"{store.models('retriever')}/{as_of}-{store.fingerprint(settings, *encoders, as_of, *inputs)}"


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Build the bundle of every date that has none for the present inputs; dates without an earlier event are left out.

    Raises DataError when there is no event before run_date, ConfigError when the catalogue is too large for `linear`,
    TrainingError when a training diverged or lost its process.
    """
    built: list[str] = []
    train: list[tuple[str, str, dict[str, int]]] = []
    dates = as_ofs(run_date, config)
    folders = {as_of: folder(store, config, as_of) for as_of in dates}
    missing = [as_of for as_of in dates if force or not model_folder.exists(folders[as_of])]
    found = histories_table.groups_of(store, config, missing) if missing else {}
    tonight = found[run_date] if run_date in found else histories_table.groups_in(folders[run_date])
    require_scenarios(config, run_date, tonight)
    rules.refresh(store, config, run_date)  # a wrong expression is found before anything is learnt
    if not tonight:
        place = store.name(INTERACTIONS.noun)
        raise DataError(f"no event before {run_date} in {place}; give a later --run-date")
    whole = histories_table.read_all(
        store, config, run_date
    ).persist()  # lazily: nothing is read where nothing is missing
    try:
        for as_of, target in folders.items():
            if as_of in missing:
                if not found[as_of]:
                    continue
                model_folder.remove(target)
                _build(store, config, as_of, found[as_of], whole, target)
                built.append(str(as_of))
            train.append(
                (target, histories_table.shards_folder(store, target), model_folder.read_manifest(target)["scenarios"])
            )
    finally:
        whole.unpersist()
    num_trained = learnt_retrievers.train(store.spark, config, train)
    note = f"built as of {', '.join(built) or 'no new date'}"
    if num_trained and not built:
        note += f", {num_trained} trained that were missing"
    return Summary("retriever", rows_out=len(built), skipped=not built and not num_trained, note=note)


@lru_cache(maxsize=2)
def open_bundle(path: str) -> Bundle:
    """One per Python process; the arrays are memory-mapped, so processes of a machine share them."""
    manifest = model_folder.read_manifest(path)
    opened = {name: np.asarray(model_folder.open_array(path, name)) for name in manifest["arrays"]}
    plain = {name: opened.get(name) for name in ("groups", "linear", "popular", "content", "known", "tie_rank")}
    plain["half_life_days"] = manifest["half_life_days"]
    plain["learnt"] = {name: learnt_retrievers.read(path, name) for name in manifest["learnt"]}
    own = {name: opened["own"][i] for i, name in enumerate(manifest["own"])}
    stats = ItemStats(**{name: opened[f"stats_{name}"] for name in STATS})
    return Bundle(manifest["as_of_day"], manifest["scenarios"], own=own, stats=stats, **plain)


def _build(store: Store, config: Config, as_of: date, scenarios: list[Group], whole: DataFrame, target: str) -> None:
    settings = config.retriever
    encoders = fact_embeddings.encoders(store, config)
    items = _items(store, config, encoders, as_of)
    num_items = int(pc.max(items[c.ITEM_IDX]).as_py()) + 1
    if settings.linear is not None:
        require_memory(num_items, settings.linear.max_items)
    rows = np.unique([0, *(group.scenario_idx for group in scenarios)]).astype(np.int32)
    histories = histories_table.as_of(whole, as_of, scenarios, config.scenarios).persist()
    try:
        day = as_of_day(as_of)
        stats, decayed_GI = item_stats(histories, rows, num_items, day, settings.popular.half_life_days)
        gram_II = gram(histories, num_items, day, settings.linear.half_life_days) if settings.linear else None
        if settings.co_occurrence is not None:
            asked = co_occurrence.Settings(**settings.co_occurrence.model_dump())
            learnt_retrievers.count_pairs(histories, num_items, stats.counts[-1, -1], asked, target)
        histories_table.write_shards(
            histories, histories_table.shards_folder(store, target)
        )  # the ranker's; built here only once
    finally:
        histories.unpersist()
    about, parts = item_arrays(items, num_items, [one.storage for one in kinds(config, encoders)])
    arrays = {
        **about,
        "groups": rows,
        "popular": popular.fit(decayed_GI, settings.popular.shrinkage),
        **{f"stats_{name}": getattr(stats, name) for name in STATS},
    }
    if settings.linear is not None and gram_II is not None:
        arrays["linear"] = linear.fit(gram_II, settings.linear.l2)
    own = _own_items(store, config, as_of, [group.scenario for group in scenarios], items)
    if own:
        arrays["own"] = np.stack(list(own.values()))
    manifest = {
        **_describe(config, as_of, scenarios),
        "num_items": num_items,
        "encoders": encoders,
        "content_parts": parts,
        "arrays": sorted(arrays),
        "own": list(own),
        "learnt": learnt_retrievers.names(config),
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


def require_scenarios(config: Config, run_date: date, known: list[Group]) -> None:
    """Raises ConfigError when scenarios.overrides, or the target of `sequence`, names a scenario that nobody has used
    and no given user is in."""
    named = {name: f"scenarios.overrides.{name}" for name in config.scenarios.overrides}
    if config.retriever.sequence is not None and config.retriever.sequence.target is not None:
        named.setdefault(config.retriever.sequence.target, "retriever.sequence.target")
    if not named or config.source.users is not None:
        return
    found = [group.scenario for group in known]
    for name in sorted(set(named) - set(found)) if found else ():
        near = difflib.get_close_matches(name, found, n=1)
        raise ConfigError(
            f"{named[name]}: no user has an event there before {run_date}; "
            + (f"did you mean {near[0]!r}?" if near else f"known scenarios: {', '.join(found[:20])}")
        )


def require_memory(num_items: int, max_items: int) -> None:
    """Raises ConfigError when the linear weights would be larger than configured."""
    if num_items > max_items:
        raise ConfigError(
            f"retriever.linear: {num_items:,} items need {4 * num_items**2 / 1e9:,.1f} GB for the weights in every "
            f"worker (and four times that in the driver meanwhile), the limit retriever.linear.max_items is "
            f"{max_items:,}; write `retriever: {{linear: null, co_occurrence: {{}}}}`, which is sparse, raise the "
            "limit where that memory is there, or narrow the catalogue (source.items.where, interactions.unknown_items)"
        )


def item_arrays(items: pa.Table, num_items: int, storages: Sequence[Storage]) -> tuple[dict[str, Array], list[int]]:
    """`known`, `tie_rank` and `content` from rows (item_id, item_idx, embedding_0 ...); and how many numbers of a
    content vector are whose. Every encoder's part has the same length, so that a cosine is the mean of theirs."""
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


def kinds(config: Config, encoders: tuple[str, ...]) -> tuple[Encoder, ...]:
    """How the vectors of each of the encoders are made and stored; those of facts, the last, are plain."""
    return (*config.item_embeddings.all, Encoder())[: len(encoders)]


def _items(store: Store, config: Config, encoders: tuple[str, ...], as_of: date) -> pa.Table:
    """(item_id, item_idx, embedding_0 ...) of the items known at the date; null where the present content has no
    vector of that encoder."""
    found: DataFrame = histories_table.known_items(store, as_of)
    rows, items = store.read(item_embeddings.TABLE), store.read(ITEMS)
    names = [f"{c.EMBEDDING}_{n}" for n in range(len(encoders))]
    for one, encoder, name in zip(kinds(config, encoders), encoders, names, strict=True):
        of_one = rows.where(F.col(c.ENCODER) == F.lit(encoder))
        vectors = of_one.select(c.ITEM_ID, c.CONTENT_HASH, F.col(c.EMBEDDING).alias(name))
        if one.input is not None:
            inputs = item_embeddings.inputs(items, one).select(c.ITEM_ID, c.CONTENT_HASH)
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
    """Scenario -> bool (n,): items with an event there, for the scenarios that list only those."""
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
