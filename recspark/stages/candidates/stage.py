"""candidates: every retriever's best items for each user and scenario, as of tonight and of past dates."""

import logging
import math
from collections.abc import Iterator
from datetime import date
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config
from recspark.errors import ConfigError, DataError
from recspark.sources import given as given_table
from recspark.sources import raw, users
from recspark.stages import item_rules as rules
from recspark.stages.candidates.blocks import Settings, block_candidates, eligible
from recspark.stages.retriever import stage as retriever
from recspark.stages.retriever.stage import Bundle, open_bundle
from recspark.summary import Summary
from recspark.tables import histories as histories_table
from recspark.tables import index
from recspark.tables.candidates import TABLE
from recspark.warehouse.store import Store

log = logging.getLogger(__name__)

USERS_A_FILE = 20_000


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Bring the candidates of tonight and the past dates up to date; a date whose inputs have not changed stays.

    Business rules hold for tonight alone. Raises ConfigError when a scenario has fewer eligible items than
    recommendations.k, DataError without a retriever.
    """
    rejected: dict[str, int] = {}
    version: int | None = None
    missing: list[tuple[date, str, str | None, str]] = []
    for as_of in retriever.as_ofs(run_date, config):
        path = retriever.folder(store, config, as_of)
        if not model_folder.exists(path):
            if as_of == run_date:
                place = store.models("retriever")
                raise DataError(f"no retriever as of {run_date} in {place}; run jobs/retriever.py first")
            continue
        tonight = as_of == run_date
        item_rules = rules.refresh(store, config, run_date) if tonight else None
        fingerprint = _fingerprint(store, config, path, tonight, item_rules)
        if force or not store.is_fresh(TABLE, fingerprint, as_of=as_of):
            missing.append((as_of, path, item_rules, fingerprint))
    # Gathered once for all dates; lazily, so nothing is read where nothing is missing.
    whole = histories_table.read_all(store, config, run_date)
    if any(as_of != run_date for as_of, *_ in missing):
        whole = by_user(whole, num_lists(missing[0][1]), config.candidates.block_users).persist()
    try:
        for as_of, path, item_rules, fingerprint in missing:
            if as_of == run_date and config.candidates.source is not None:
                rows, rejected = given_candidates(store, config, whole, as_of, path)
            elif as_of == run_date:
                rows = tonight_of(store, config, whole, as_of, path, item_rules)
            else:
                rows = past_of(config, whole, as_of, path)
            metadata = {"fingerprint": fingerprint, "as_of": str(as_of)}
            version = store.replace(TABLE, rows, where=f"{c.AS_OF} = '{as_of}'", metadata=metadata)
            log.info("candidates: as of %s written", as_of)
    finally:
        whole.unpersist()
    total = store.read(TABLE).where(F.col(c.AS_OF) == F.lit(run_date)).count()
    note = f"built as of {', '.join(str(as_of) for as_of, *_ in missing) or 'no new date'}"
    return Summary("candidates", rows_out=total, rejected=rejected, skipped=not missing, note=note, version=version)


def tonight_of(
    store: Store, config: Config, whole: DataFrame, as_of: date, bundle_path: str, item_rules: str | None
) -> DataFrame:
    """The rows of tonight: the users with events, those of source.users, and `__default__`."""
    settings, groups = settings_of(config, as_of, item_rules), histories_table.groups_in(bundle_path)
    histories = histories_table.as_of(whole, as_of, groups, config.scenarios)
    names = [group.scenario for group in groups]
    if config.source.users is not None:
        ids = users.eligible_users(store, config)
        # user_id is the index's key, so the join keeps one row an id
        given = ids.join(store.read(index.USER_INDEX), on=c.USER_ID, how="inner").select(c.USER_IDX, c.SCENARIO)
        histories = histories_table.with_given(histories, given)
        names = sorted({*names, *(row[0] for row in given.select(c.SCENARIO).distinct().collect())})
    histories = histories_table.with_default_user(histories, names)
    require_items(open_bundle(bundle_path), settings, names)
    return build(by_user(histories, num_lists(bundle_path), settings.block_users), bundle_path, settings)


def past_of(config: Config, whole: DataFrame, as_of: date, bundle_path: str) -> DataFrame:
    """The rows of a past date, of the users with events before it. `whole` is in order already, see `by_user`."""
    past = config.of_past_dates()
    histories = histories_table.as_of(whole, as_of, histories_table.groups_in(bundle_path), past.scenarios)
    return build(histories, bundle_path, settings_of(past, as_of))


def given_candidates(
    store: Store, config: Config, whole: DataFrame, as_of: date, bundle_path: str
) -> tuple[DataFrame, dict[str, int]]:
    """The rows of candidates.source that name a known item, scored like our own; and the rejected ones by reason."""
    given, rejected = given_table.refresh(store, config, histories_table.known_items(store, as_of), as_of)
    histories = histories_table.as_of(whole, as_of, histories_table.groups_in(bundle_path), config.scenarios)
    histories = histories_table.only_given(histories, given)
    settings = settings_of(config, as_of)
    return build(by_user(histories, num_lists(bundle_path), settings.block_users), bundle_path, settings), rejected


def num_lists(bundle_path: str) -> int:
    """Roughly: a user counts once a scenario, which is how many lists there are unless a rule says `users: all`."""
    return sum(group.num_users for group in histories_table.groups_in(bundle_path))


def settings_of(config: Config, as_of: date, item_rules: str | None = None) -> Settings:
    """What the workers need of the configuration."""
    depth, k = config.candidates.depth, config.recommendations.k
    return Settings(as_of, config.scenarios, depth, k, config.candidates.block_users, item_rules)


def by_user(histories: DataFrame, num_users: int, block_users: int) -> DataFrame:
    """In order of user_idx within as many partitions, later files, as that number of users roughly calls for."""
    slots = histories.sparkSession.sparkContext.defaultParallelism
    files = max(1, min(slots, math.ceil(num_users / block_users)), math.ceil(num_users / USERS_A_FILE))
    return histories.repartition(files, c.USER_IDX).sortWithinPartitions(c.USER_IDX)


def build(histories: DataFrame, bundle_path: str, settings: Settings) -> DataFrame:
    """Rows of TABLE for every list of `histories`, in their order.

    The same rows whatever the partitioning: each depends on its user and the bundle only.
    """
    rows = histories.mapInArrow(partial(_blocks, bundle_path=bundle_path, settings=settings), TABLE.ddl)
    return rows.select(TABLE.columns)


def require_items(bundle: Bundle, settings: Settings, scenarios: list[str]) -> None:
    """Raises ConfigError when a scenario has fewer eligible items than a list has places."""
    k = settings.k
    for name in scenarios:
        rule = settings.rules.rule(name)
        items = eligible(bundle, settings.rules, name, settings.item_rules)
        num_items = int(np.count_nonzero(items))
        if num_items >= k:
            continue
        kind = "items with an event there (items: own)" if rule.items == "own" else "known items"
        mend = "lower k" + (f", or set scenarios.overrides.{name}.items: all" if rule.items == "own" else "")
        if rule.where is not None:
            key = f"scenarios.overrides.{name}" if name in settings.rules.overrides else "scenarios.default"
            kind = f"{kind} that `{rule.where}` ({key}.where) leaves"
            mend = f"{mend}, or make {key}.where leave more"
        raise ConfigError(f"recommendations.k: found {k}, but scenario {name!r} has {num_items} {kind}; {mend}")


def _blocks(batches: Iterator[pa.RecordBatch], bundle_path: str, settings: Settings) -> Iterator[pa.RecordBatch]:
    bundle = open_bundle(bundle_path)
    for batch in batches:
        for low in range(0, batch.num_rows, settings.block_users):
            yield block_candidates(batch.slice(low, settings.block_users), bundle, settings)


def _fingerprint(store: Store, config: Config, bundle_path: str, tonight: bool, item_rules: str | None) -> str:
    given = "none"
    if tonight and config.candidates.source is not None:
        given = raw.fingerprint(store.spark, config.candidates.source, given_table.SECTION)
    elif tonight and config.source.users is not None:
        given = raw.fingerprint(store.spark, config.source.users, users.SECTION) + config.digest("source")
    read = config if tonight else config.of_past_dates()
    settings = read.digest("candidates", "recommendations", "scenarios", "interactions")
    names = [path and path.rsplit("/", 1)[-1] for path in (bundle_path, item_rules)]
    return store.fingerprint(settings, *names, tonight, given)
