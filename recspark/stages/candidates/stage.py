"""candidates: every retriever's best items for each user and scenario, as of tonight and of past dates."""

import logging
import math
from collections.abc import Iterator
from datetime import date
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import ConfigError
from recspark.sources import given, raw, users
from recspark.stages import item_rules
from recspark.stages.candidates.blocks import Settings, block_candidates, eligible
from recspark.stages.retriever.bundle import Bundle, open_bundle
from recspark.summary import Summary
from recspark.tables import histories, index, training_examples
from recspark.tables.candidates import RATES, TABLE
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import as_ofs, window_end

log = logging.getLogger(__name__)

RETRIEVER = "retriever"
USERS_A_FILE = 20_000
BLOCK_CELLS = 1 << 25  # users x items of a block: 128 MiB of float32 for each retriever


class Missing(NamedTuple):
    """A date whose candidates are to be made; `whole`: of all users who did something in the window after it."""

    as_of: date
    bundle: str
    rules: str | None
    fingerprint: str
    whole: bool


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Bring the candidates of tonight and the past dates up to date; a date whose inputs have not changed stays.

    Business rules (`where`, `at_most`) apply to tonight only.

    Raises: ConfigError if a scenario has fewer eligible items than recommendations.k, DataError without a retriever.
    """
    rejected: dict[str, int] = {}
    version: int | None = None
    missing: list[Missing] = []
    settings = config.training_examples
    artifacts.require(store, config, RETRIEVER, run_date, RETRIEVER)
    for age, as_of in enumerate(as_ofs(run_date, settings.label_days, settings.num_windows)):
        path = artifacts.find(store, config, RETRIEVER, as_of)
        if path is None:  # no event before that date
            continue
        tonight = as_of == run_date
        rules = item_rules.refresh(store, config, run_date) if tonight else None
        whole = age <= config.model_metrics.num_windows  # tonight's, and those on which the modes are judged
        fingerprint = _fingerprint(store, config, as_of, path, tonight, rules, whole)
        if force or not store.is_fresh(TABLE, fingerprint, as_of=as_of):
            missing.append(Missing(as_of, path, rules, fingerprint, whole))
    busy = histories.busy_users(store, run_date) if missing else []
    # Collected once for all dates; lazy, so nothing is read if no date is missing.
    all_histories = histories.read_all(store, config, run_date, busy, [one.as_of for one in missing])
    if any(one.as_of != run_date for one in missing):
        all_histories = all_histories.persist()
    try:
        for as_of, path, rules, fingerprint, whole in missing:
            metadata: dict[str, Any] = {artifacts.FINGERPRINT: fingerprint, "as_of": str(as_of)}
            if as_of == run_date and config.candidates.source is not None:
                rows, rejected = given_candidates(store, config, all_histories, as_of, path)
            elif as_of == run_date:
                rows = tonight_of(store, config, all_histories, as_of, path, rules)
            else:
                rows, rates = past_of(store, config, all_histories, as_of, path, whole)
                metadata[RATES] = rates._asdict()
            version = store.replace(TABLE, rows, where=f"{c.AS_OF} = '{as_of}'", metadata=metadata)
            log.info("candidates: as of %s written", as_of)
    finally:
        all_histories.unpersist()
    total = store.read(TABLE).where(F.col(c.AS_OF) == F.lit(run_date)).count()
    note = f"built as of {', '.join(str(one.as_of) for one in missing) or 'no new date'}"
    return Summary("candidates", rows_out=total, rejected=rejected, skipped=not missing, note=note, version=version)


def tonight_of(
    store: Store, config: Config, all_histories: DataFrame, as_of: date, bundle_path: str, rules: str | None
) -> DataFrame:
    """Tonight's candidates: of users with events, of those in source.users, and of `__default__`."""
    settings, groups = settings_of(config, as_of, rules), histories.groups_in(bundle_path)
    known = histories.as_of(all_histories, as_of, groups, config.scenarios)
    names = [group.scenario for group in groups]
    if config.source.users_with_lists is not None:
        ids = users.eligible_users(store, config)
        # user_id is the index's key, so the join keeps one row an id
        listed = ids.join(store.read(index.USER_INDEX), on=c.USER_ID, how="inner").select(c.USER_IDX, c.SCENARIO)
        known = histories.with_given(known, listed)
        names = sorted({*names, *(row[0] for row in listed.select(c.SCENARIO).distinct().collect())})
    known = histories.with_default_user(known, names)
    require_items(open_bundle(bundle_path), settings, names)
    return build(by_user(known, num_lists(bundle_path), settings.block_users), bundle_path, settings)


def past_of(
    store: Store, config: Config, all_histories: DataFrame, as_of: date, bundle_path: str, whole: bool
) -> tuple[DataFrame, training_examples.Rates]:
    """Candidates of a past date, and which share of them the rankers learn from. They are of the users with events
    before it from whom the rankers learn or, if `whole`, on whom the modes are judged
    (`training_examples.users_of_window`), and of `__default__`, by which users are measured who came later."""
    past, groups = config.of_past_dates(), histories.groups_in(bundle_path)
    known = histories.as_of(all_histories, as_of, groups, past.scenarios)
    events = store.events(INTERACTIONS, as_of, window_end(as_of, config.training_examples.label_days))
    numbers = store.read(index.USER_INDEX)
    learnt_from, num_users, rates = training_examples.users_of_window(known, events, numbers, config, as_of, whole)
    known = known.join(learnt_from, on=c.USER_IDX, how="left_semi")
    known = histories.with_default_user(known, [group.scenario for group in groups])
    settings = settings_of(past, as_of)
    return build(by_user(known, num_users, settings.block_users), bundle_path, settings), rates


def given_candidates(
    store: Store, config: Config, all_histories: DataFrame, as_of: date, bundle_path: str
) -> tuple[DataFrame, dict[str, int]]:
    """The rows of candidates.source with a known item, scored like other candidates; and rejected rows by reason."""
    rows, rejected = given.refresh(store, config, histories.known_items(store, as_of), as_of)
    known = histories.as_of(all_histories, as_of, histories.groups_in(bundle_path), config.scenarios)
    known = histories.only_given(known, rows)
    settings = settings_of(config, as_of)
    return build(by_user(known, num_lists(bundle_path), settings.block_users), bundle_path, settings), rejected


def num_lists(bundle_path: str) -> int:
    """Number of lists: one for each user in each scenario. With `users: all` in a rule there are more."""
    return sum(group.num_users for group in histories.groups_in(bundle_path))


def settings_of(config: Config, as_of: date, rules: str | None = None) -> Settings:
    """The part of the configuration that workers need."""
    depth, k = config.candidates.depth, config.recommendations.k
    return Settings(as_of, config.scenarios, depth, k, config.candidates.block_users, rules)


def by_user(rows: DataFrame, num_users: int, block_users: int) -> DataFrame:
    """Sort the rows by user_idx within partitions (later files), as many as about `num_users` users need."""
    slots = rows.sparkSession.sparkContext.defaultParallelism
    files = max(1, min(slots, math.ceil(num_users / block_users)), math.ceil(num_users / USERS_A_FILE))
    return rows.repartition(files, c.USER_IDX).sortWithinPartitions(c.USER_IDX)


def build(known: DataFrame, bundle_path: str, settings: Settings) -> DataFrame:
    """Rows of TABLE for every list of the given HISTORIES rows, in their order.

    The rows do not depend on the partitioning: each depends on its user and the bundle only.
    """
    rows = known.mapInArrow(partial(_blocks, bundle_path=bundle_path, settings=settings), TABLE.ddl)
    return rows.select(TABLE.columns)


def require_items(bundle: Bundle, settings: Settings, scenarios: list[str]) -> None:
    """Raises ConfigError if a scenario has fewer eligible items than places on a list."""
    k = settings.k
    for name in scenarios:
        rule = settings.rules.rule(name)
        items = eligible(bundle, settings.rules, name, settings.item_rules)
        num_items = int(np.count_nonzero(items))
        if num_items >= k:
            continue
        kind = "items with an event there (items: own)" if rule.items == "own" else "known items"
        fix = "lower k" + (f", or set scenarios.overrides.{name}.items: all" if rule.items == "own" else "")
        if rule.where is not None:
            key = f"scenarios.overrides.{name}" if name in settings.rules.overrides else "scenarios.default"
            kind = f"{kind} that `{rule.where}` ({key}.where) leaves"
            fix = f"{fix}, or make {key}.where leave more"
        raise ConfigError(f"recommendations.k: found {k}, but scenario {name!r} has {num_items} {kind}; {fix}")


def _blocks(batches: Iterator[pa.RecordBatch], bundle_path: str, settings: Settings) -> Iterator[pa.RecordBatch]:
    bundle = open_bundle(bundle_path)
    size = users_a_block(settings.block_users, len(bundle.known))
    for batch in batches:
        for low in range(0, batch.num_rows, size):
            yield block_candidates(batch.slice(low, size), bundle, settings)


def users_a_block(block_users: int, num_items: int) -> int:
    """`block_users`, but fewer where a retriever's scores would have more than BLOCK_CELLS."""
    return max(1, min(block_users, BLOCK_CELLS // num_items))


def _fingerprint(
    store: Store, config: Config, as_of: date, bundle_path: str, tonight: bool, rules: str | None, whole: bool
) -> str:
    listed = "none"  # what says whose lists they are, beside the retriever
    if tonight and config.candidates.source is not None:
        listed = raw.fingerprint(store.spark, config.candidates.source, given.SECTION)
    elif tonight and (source := config.source.users_with_lists) is not None:
        listed = raw.fingerprint(store.spark, source, users.SECTION) + config.digest(users.SECTION)
    elif not tonight:
        listed = store.digest(INTERACTIONS, c.EVENT_DATE, window_end(as_of, config.training_examples.label_days))
    read = config if tonight else config.of_past_dates()
    names = [path and artifacts.name_of(path) for path in (bundle_path, rules)]
    return artifacts.fingerprint(TABLE.noun, read, *names, tonight, whole, listed)
