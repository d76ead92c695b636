"""training_examples: past candidates, labelled by what users did in the window after their as_of date."""

import logging
import math
from datetime import date, timedelta

from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.summary import Summary
from recspark.tables import candidates, index
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.training_examples import Rates, build, in_hash_order, outcomes, table
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import closed_windows, window_end

log = logging.getLogger(__name__)

ROWS_A_FILE = 1_000_000
MIN_FILES = 4  # a feed needs at least as many row groups as ranks


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Build the examples of every closed window whose inputs have changed.

    Raises: DataError if no window has closed yet, or the candidates of one were not made to learn from.
    """
    settings = config.training_examples
    target = table(settings.tasks)
    built = total = 0
    version: int | None = None
    windows = closed_windows(run_date, settings.label_days, settings.num_windows)
    for as_of in windows:
        stamp = store.stamp(candidates.TABLE, as_of=as_of)
        if stamp is None:
            log.info("training_examples: no candidates as of %s (no event before it), window skipped", as_of)
            continue
        end = window_end(as_of, settings.label_days)
        inputs = (stamp[artifacts.FINGERPRINT], store.digest(INTERACTIONS, c.EVENT_DATE, end), as_of)
        fingerprint = artifacts.fingerprint(target.noun, config, *inputs)
        if not force and store.is_fresh(target, fingerprint, as_of=as_of):
            continue
        if candidates.RATES not in stamp:
            raise DataError(
                f"candidates as of {as_of} in {store.name(candidates.TABLE.noun)}: found those of that night, or of "
                "an earlier version, expected those to learn from; run jobs/candidates.py first"
            )
        known = store.read(candidates.TABLE).where((F.col(c.AS_OF) == F.lit(as_of)) & (F.col(c.USER_IDX) >= 0))
        events = store.events(INTERACTIONS, as_of, end)
        users = store.read(index.USER_INDEX)
        labels = outcomes(events, users, store.read(index.ITEM_INDEX), config).persist()
        files = max(MIN_FILES, math.ceil(known.count() / ROWS_A_FILE))
        built_rows = build(known, labels, users, config, as_of, Rates(**stamp[candidates.RATES]))
        rows = in_hash_order(built_rows, target.key, files)
        metadata = {artifacts.FINGERPRINT: fingerprint, "as_of": str(as_of)}
        try:
            version = store.replace(target, rows, where=f"{c.AS_OF} = '{as_of}'", metadata=metadata)
        finally:
            labels.unpersist()
        built += 1
        log.info("training_examples: window %s to %s written", as_of, end - timedelta(days=1))
    if not store.exists(target):
        raise DataError(
            f"no closed window before {run_date}: the newest would open at {windows[0]}, before the first event; "
            f"history of more than {settings.label_days} days is needed to learn a ranking"
        )
    total = store.read(target).where(F.col(c.AS_OF).isin(list(windows))).count()
    return Summary(
        "training_examples",
        rows_in=0,
        rows_out=total,
        skipped=built == 0,
        version=version,
        note=f"{built} windows built",
    )
