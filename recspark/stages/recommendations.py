"""recommendations: tonight's candidates, ordered by the mode that the gate chose, checked, published in one commit."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.retrievers import RETRIEVERS
from recspark.config.schema import Config
from recspark.errors import DataError, PublishError
from recspark.histories import ranges
from recspark.sources import users
from recspark.stages import item_rules, lists, night_statistics, promotions
from recspark.stages.lists import batches_by_user
from recspark.stages.ranker import scorer
from recspark.stages.ranker.modes import PUBLISHED
from recspark.summary import Summary
from recspark.tables import candidates, index, model_metrics, published_runs, recommendation_facts
from recspark.tables import recommendations as table
from recspark.tables.candidates import EXPLAINING_ITEM, REPEAT
from recspark.tables.histories import DEFAULT_USER_IDX
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.item_facts import TABLE as ITEM_FACTS
from recspark.tables.items import TABLE as ITEMS
from recspark.tables.recommendation_facts import TABLE as LINKS
from recspark.tables.recommendations import PROMOTED, TABLE, TOP
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

log = logging.getLogger(__name__)

LimitOf = Callable[[str], item_rules.Limit | None]  # of a raw scenario; pickled to the workers
PromotionOf = Callable[[str], promotions.Promotion | None]

BLOCK_ROWS = 100_000
POPULAR = "popular"
USER_EVENTS = "user_events"  # the feature: positive events of the user, as log(1 + n)
ROWS_A_FILE = 2_000_000
TOP_NAMES = [part.split()[0] for part in TOP.split(", ")]


def refresh(store: Store, config: Config, run_date: date, force: bool = False, accept: bool = False) -> Summary:
    """Publish the lists of one night, unless they were already published from the same inputs.

    `accept`: lists unlike those of earlier nights are published too.

    Raises: DataError without candidates or metrics; PublishError if a check fails, or if the lists are unlike earlier
    ones: the table stays as it was, and published_runs has the status `held` with the reason.
    """
    stamps = [store.stamp(candidates.TABLE, as_of=run_date), store.stamp(model_metrics.TABLE, run_date=run_date)]
    for found, job in zip(stamps, ("candidates", "model_metrics"), strict=True):
        if found is None:
            raise DataError(
                f"the table {job} has no rows for {run_date}, or others have changed it since; run jobs/{job}.py or "
                "jobs/nightly.py first"
            )
    items = store.digest(ITEMS, c.FIRST_SEEN, run_date)
    facts = store.token(ITEM_FACTS) if reasons_of(config) else None
    made_from = [found[artifacts.FINGERPRINT] for found in stamps if found]
    fingerprint = artifacts.fingerprint(TABLE.noun, config, run_date, *made_from, items, facts)
    if not force and store.is_fresh(TABLE, fingerprint, run_date=run_date):
        if not night_statistics.has_lists(store, run_date):
            _complete(store, run_date)
        return Summary("recommendations", skipped=True)
    modes = model_metrics.decisions(store, run_date)
    scoring = scorer.scorer(store, config, run_date, run_date, PUBLISHED)
    tie_rank = partial(model_folder.open_array, scoring.bundle, "tie_rank")
    rules = (config.scenarios, item_rules.refresh(store, config, run_date))
    limit_of, promotion_of = partial(item_rules.limit_of, *rules), partial(promotions.promotion_of, *rules)
    rows = store.read(candidates.TABLE).where(F.col(c.AS_OF) == F.lit(run_date))
    top = top_lists(rows, scoring, modes, config.recommendations.k, tie_rank, limit_of, promotion_of)
    versions = published_runs.Versions(
        config.digest(*type(config).model_fields),
        models={mode: scoring.folders(mode) for mode in sorted(set(modes.values()) - set(RETRIEVERS))},
        inputs={t.noun: store.token(t) for t in (INTERACTIONS, ITEMS, candidates.TABLE, model_metrics.TABLE)},
    )
    rows = staged(store, config, top, run_date)
    return publish(store, config, run_date, rows, fingerprint, versions, accept)


def repair(store: Store) -> None:
    """Correct published_runs after a crash right after lists were published or taken back; called first in every
    run."""
    for run_id in published_runs.repair(store, TABLE):
        log.warning("published_runs: the row of run %s was missing or old; corrected from the commits", run_id)


def top_lists(
    rows: DataFrame,
    scoring: lists.Scorer,
    modes: Mapping[str, str],
    k: int,
    tie_rank: Callable[[], Array],
    limit_of: LimitOf,
    promotion_of: PromotionOf,
) -> DataFrame:
    """Rows of TOP: the k best candidates of every list, by its scenario's mode, within its scenario's rules.

    A user without a positive event, such as the default one, gets the popular items: no trained mode has learnt from
    such users. A scenario without a decision of the gate gets null scores, which the checks refuse to publish.
    """
    has_events = F.col(USER_EVENTS) > 0
    known = _scored(rows.where(has_events), scoring, modes)
    unknown = _scored(rows.where(~has_events), scoring, dict.fromkeys(modes, POPULAR))
    by_user = lists.by_user(known.unionByName(unknown))
    return by_user.mapInArrow(partial(_top, k=k, tie_rank=tie_rank, limit_of=limit_of, promotion_of=promotion_of), TOP)


def _scored(rows: DataFrame, scoring: lists.Scorer, modes: Mapping[str, str]) -> DataFrame:
    """Candidates with NAMES of lists.py, the mode of their scenario, and its score."""
    used = tuple(sorted(set(modes.values())))
    scored = lists.scored(rows, scoring, used).join(_modes(rows, modes), on=c.SCENARIO, how="left")
    chosen = F.coalesce(*(F.when(F.col(c.MODEL) == mode, F.col(f"score_{mode}")) for mode in used), F.lit(None))
    return scored.select(*lists.NAMES, c.MODEL, chosen.cast("double").alias(c.SCORE))


def _modes(rows: DataFrame, modes: Mapping[str, str]) -> DataFrame:
    frame = rows.sparkSession.createDataFrame(sorted(modes.items()), f"{c.SCENARIO} string, {c.MODEL} string")
    return F.broadcast(frame)


def _top(
    batches: Iterator[pa.RecordBatch],
    k: int,
    tie_rank: Callable[[], Array],
    limit_of: LimitOf,
    promotion_of: PromotionOf,
) -> Iterator[pa.RecordBatch]:
    ties = tie_rank()
    for block in batches_by_user(batches, BLOCK_ROWS):
        yield top_of_block(block, k, ties, limit_of, promotion_of)


def top_of_block(block: pa.Table, k: int, ties: Array, limit_of: LimitOf, promotion_of: PromotionOf) -> pa.RecordBatch:
    """Rows of TOP of a block with all rows of its users; each list is ordered on its own.

    `model` of a row is the mode of its list, or `popular` where that is a retriever that did not score the item: one
    without content.
    """
    scenarios = block[c.SCENARIO].combine_chunks().dictionary_encode()
    user_idx, item_idx = block[c.USER_IDX].to_numpy(), block[c.ITEM_IDX].to_numpy()
    list_idx, first = lists.list_numbers(scenarios.indices.to_numpy(), user_idx)
    # Rows a retriever did not score are ordered by popularity; a trained model that returns NaN is an error.
    may_be_missing = pc.is_in(block[c.MODEL], value_set=pa.array(RETRIEVERS)).to_numpy()
    repeat = pc.equal(block[c.SOURCE], REPEAT).to_numpy()
    scores, popular = block[c.SCORE].to_numpy(), block[lists.POPULAR].to_numpy()
    final = np.empty(len(scores))
    for part, fallback in ((may_be_missing, popular), (~may_be_missing, None)):
        filled = None if fallback is None else fallback[part]
        final[part] = lists.final_scores(list_idx[part], len(first), scores[part], filled, repeat[part])
    promotion = {name: promotion_of(name) for name in scenarios.dictionary.to_pylist()}
    code, most = _limits(scenarios, item_idx, lambda name: None if promotion[name] else limit_of(name))
    if most.any():
        final = lists.limited(list_idx, len(first), final, ties[item_idx], repeat, code, most)
    final, promoted = _promoted(scenarios, list_idx, final, ties, repeat, item_idx, promotion.__getitem__)
    order = lists.ordered(list_idx, final, ties[item_idx])
    position = ranges(np.bincount(list_idx, minlength=len(first)))
    at, place = order[position < k], position[position < k]
    model = pc.if_else(pa.array(may_be_missing & np.isnan(scores)), "popular", block[c.MODEL].combine_chunks())
    found = block.select([c.SCENARIO, c.USER_IDX, c.ITEM_IDX, c.SOURCE, EXPLAINING_ITEM]).take(pa.array(at))
    columns = {name: found[name].combine_chunks() for name in found.column_names}
    columns |= {c.RANK: pa.array((place + 1).astype(np.int32)), c.SCORE: pa.array(final[at])}
    columns |= {c.MODEL: model.take(pa.array(at)), PROMOTED: promoted.take(pa.array(at))}
    return pa.record_batch([columns[name] for name in TOP_NAMES], names=TOP_NAMES)


def _limits(scenarios: pa.DictionaryArray, item_idx: Array, limit_of: LimitOf) -> tuple[Array, Array]:
    """`code` and `most` of `lists.limited`, (n,) each."""
    code, most = np.full(len(item_idx), -1), np.zeros(len(item_idx), dtype=np.int64)
    for n, name in enumerate(scenarios.dictionary.to_pylist()):
        if (limit := limit_of(name)) is not None:
            at = scenarios.indices.to_numpy() == n
            code[at], most[at] = limit.code[item_idx[at]], limit.items
    return code, most


def _promoted(
    scenarios: pa.DictionaryArray,
    list_idx: Array,
    final: Array,
    ties: Array,
    repeat: Array,
    item_idx: Array,
    promotion_of: PromotionOf,
) -> tuple[Array, pa.Array]:
    """`final` under the promotions of each scenario, and for each row what they add to its reason, null for nothing."""
    final, said = final.copy(), np.zeros(len(final), dtype=np.int64)
    reasons: list[str | None] = [None]
    for n, rule in enumerate(map(promotion_of, scenarios.dictionary.to_pylist())):
        if rule is not None:
            at = np.flatnonzero(scenarios.indices.to_numpy() == n)
            rows = (list_idx[at], final[at], ties[item_idx[at]], repeat[at], item_idx[at])
            final[at], named = promotions.arranged(*rows, rule)
            said[at] = np.where(named >= 0, len(reasons) + named, 0)
            reasons += rule.reasons
    return final, pa.array(reasons, pa.string()).take(pa.array(said))


def staged(store: Store, config: Config, top: DataFrame, run_date: date) -> DataFrame:
    """Rows of TABLE: `top` with ids and reasons."""
    default_user = store.spark.createDataFrame([(c.DEFAULT_USER, DEFAULT_USER_IDX)], index.USER_INDEX.schema)
    users = store.read(index.USER_INDEX).unionByName(default_user)
    texts = store.read(ITEMS).select(c.ITEM_ID, c.TEXT, c.NAME)
    items = store.read(index.ITEM_INDEX).join(texts, on=c.ITEM_ID, how="inner")  # item_id is the key of both
    return table.build(top, users, items, run_date, store.run_id, config.recommendations.reasons)


def expected_lists(store: Store, config: Config, run_date: date, events: DataFrame) -> DataFrame:
    """(scenario, user_id) of the lists expected tonight.

    With candidates.source: the lists of its rows, with a column `size`, since a list there may have fewer than k items.
    """
    if config.candidates.source is None:
        given = users.eligible_users(store, config) if config.source.users_with_lists is not None else None
        return table.eligible(events, config.scenarios, given, default_user=True)
    rows = store.read(candidates.TABLE).where(F.col(c.AS_OF) == F.lit(run_date))
    sizes = rows.groupBy(c.SCENARIO, c.USER_IDX).agg(F.count("*").alias("rows"))
    size = F.least("rows", F.lit(config.recommendations.k)).cast("int").alias(table.SIZE)
    # user_idx is unique in the index, so the join keeps one row a list
    return sizes.join(store.read(index.USER_INDEX), on=c.USER_IDX, how="inner").select(c.SCENARIO, c.USER_ID, size)


def reasons_of(config: Config) -> dict[str, str]:
    """Relation -> the configured reason text for a shared fact; empty without item_facts."""
    return config.item_facts.reasons if config.item_facts is not None else {}


def with_facts(
    store: Store, config: Config, run_date: date, rows: DataFrame, events: DataFrame, files: ExitStack
) -> tuple[DataFrame, DataFrame | None]:
    """`rows` with reasons from facts, and the facts used, both in files; `rows` and None without such reasons."""
    reasons = reasons_of(config)
    if not reasons:
        return rows, None
    built = recommendation_facts.build(rows, events, store.read(ITEM_FACTS), reasons, run_date, store.run_id)
    links = files.enter_context(store.staged(LINKS, built))
    names = store.read(ITEMS).select(c.ITEM_ID, table.name_of_item().alias("name"))
    promoted = {reason for rule in config.scenarios.by_key.values() for reason in rule.promotions}
    explained = recommendation_facts.explained(rows, links, names, reasons, sorted(promoted))
    return files.enter_context(store.staged(TABLE, explained)), links


def publish(
    store: Store,
    config: Config,
    run_date: date,
    rows: DataFrame,
    fingerprint: str,
    versions: published_runs.Versions,
    accept: bool,
) -> Summary:
    """Write `rows` (of TABLE) to files, check what lies there, replace the night by it in one commit, and record it in
    published_runs."""
    events = store.events(INTERACTIONS, None, run_date)
    expected = expected_lists(store, config, run_date, events).persist()
    k = config.recommendations.k
    num_files = max(1, math.ceil(expected.count() * k / ROWS_A_FILE))
    try:
        with ExitStack() as files:
            made = files.enter_context(store.staged(TABLE, rows))
            kept, links = with_facts(store, config, run_date, made, events, files)
            seen = events.select(c.USER_ID, c.ITEM_ID).distinct()
            items = store.read(ITEMS).where(F.col(c.FIRST_SEEN) < F.lit(run_date))
            checked = table.check(kept, expected, seen, items, config.scenarios, k, run_date)
            if checked.failures:
                published_runs.write(store, run_date, published_runs.HELD, checked.reason, versions)
                raise PublishError(
                    f"recommendations of {run_date} held: {checked.reason}; readers keep the previous night. The "
                    "lists come from candidates and ranker: rebuild them with --force --from candidates"
                )
            figures, unlike = night_statistics.compare_lists(store, run_date, kept)
            accepted = night_statistics.settle(store, config, run_date, "lists", unlike, accept)
            stamp = {artifacts.FINGERPRINT: fingerprint, "run_date": str(run_date), **versions.metadata()}
            version = _replace_night(store, run_date, kept, links, num_files, stamp)
    finally:
        expected.unpersist()
    night_statistics.write_lists(store, run_date, figures)
    reason = f"{checked.num_rows:,} rows, {checked.num_lists:,} lists of {k}" + (accepted and f"; {accepted}")
    published_runs.write(store, run_date, published_runs.PUBLISHED, reason, versions)
    return Summary("recommendations", rows_out=checked.num_rows, note=f"published: {reason}", version=version)


def _complete(store: Store, run_date: date) -> None:
    """Make what follows the commit of a night's lists, where a run ended right after it."""
    rows = store.read(TABLE).where(F.col(c.RUN_DATE) == F.lit(run_date))
    for row in rows.select(c.RUN_ID).distinct().collect() if store.exists(LINKS) else ():  # one: it was one commit
        _delete_old_links(store, run_date, row[c.RUN_ID])
    night_statistics.write_lists(store, run_date, night_statistics.compare_lists(store, run_date, rows)[0])


def _delete_old_links(store: Store, run_date: date, run_id: str) -> None:
    """Delete the facts of earlier runs of a night whose lists are those of `run_id`."""
    of_others = (F.col(c.RUN_DATE) == F.lit(run_date)) & (F.col(c.RUN_ID) != F.lit(run_id))
    if not store.read(LINKS).where(of_others).isEmpty():
        store.delete(LINKS, of_others)


def _replace_night(
    store: Store, run_date: date, lists_: DataFrame, links: DataFrame | None, num_files: int, stamp: dict[str, object]
) -> int:
    """The commit on TABLE. At any moment the lists that a reader sees have their facts, of the same run_id: this run's
    facts are added before, and those of an earlier run of the same night are deleted afterwards."""
    where = f"{c.RUN_DATE} = DATE'{run_date}'"
    if links is not None:
        store.replace(LINKS, links.coalesce(num_files), where=f"{where} AND {c.RUN_ID} = '{store.run_id}'")
    ordered = lists_.repartition(num_files, c.USER_ID).sortWithinPartitions(c.SCENARIO, c.USER_ID, c.RANK)
    version = store.replace(TABLE, ordered, where=where, metadata=stamp, txn=(store.run_id, 1))
    if links is not None:
        _delete_old_links(store, run_date, store.run_id)
    return version
