"""retriever: the models that find candidates, as of tonight and of every past date that the ranker learns from.

One folder for each date (see bundle.py); in it a folder for each retriever that is a model of its own (see trained.py).
"""

import difflib
import logging
from datetime import date

from recspark import columns as c
from recspark import model_folder
from recspark.config.schema import Config
from recspark.errors import ConfigError, DataError
from recspark.stages import item_rules
from recspark.stages.item_embeddings.encoders import NightEncoder, encoders_of
from recspark.stages.retriever import trained as trained_retrievers
from recspark.stages.retriever.bundle import build_bundle
from recspark.summary import Summary
from recspark.tables import histories, index
from recspark.tables.histories import Group
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import as_ofs

log = logging.getLogger(__name__)

NOUN = "retriever"


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Build the folder of every date that has none for the present inputs; dates without an earlier event are skipped.

    Raises: DataError if there is no event before run_date, ConfigError if the catalogue is too large for `linear`,
    TrainingError if a training diverged or lost its process.
    """
    settings = config.training_examples
    encoders = encoders_of(store, config, run_date)
    dates = as_ofs(run_date, settings.label_days, settings.num_windows)
    numbers = index.numbering(store)
    folders = {as_of: _folder(store, config, encoders, as_of, numbers) for as_of in dates}
    missing = [as_of for as_of in dates if force or not model_folder.exists(folders[as_of])]
    found = histories.groups_of(store, config, missing) if missing else {}
    tonight = found[run_date] if run_date in found else histories.groups_in(folders[run_date])
    require_scenarios(config, run_date, tonight)
    item_rules.refresh(store, config, run_date)  # so that a wrong expression is an error before anything is trained
    if not tonight:
        place = store.name(INTERACTIONS.noun)
        raise DataError(f"no event before {run_date} in {place}; give a later --run-date")
    busy = histories.busy_users(store, run_date) if missing else []
    # lazy: not read if no date is missing
    all_histories = histories.read_all(store, config, run_date, busy, missing).persist()
    built: list[str] = []
    train: list[tuple[str, str, dict[str, int]]] = []
    try:
        for as_of, target in folders.items():
            if as_of in missing:
                if not found[as_of]:
                    artifacts.forget(store, config, NOUN, as_of)
                    continue
                model_folder.remove(target)
                build_bundle(store, config, as_of, found[as_of], encoders, all_histories, target)
                built.append(str(as_of))
            artifacts.point(store, config, NOUN, as_of, target)
            shards = histories.shards_folder(store, target)
            train.append((target, shards, model_folder.read_manifest(target)["scenarios"]))
    finally:
        all_histories.unpersist()
    num_trained = trained_retrievers.train(store.spark, config, train)
    note = f"built as of {', '.join(built) or 'no new date'}"
    if busy:
        note += f"; of {len(busy)} users with more than {histories.MOST_EVENTS:,} events the newest count"
    if num_trained and not built:
        note += f", {num_trained} trained that were missing"
    return Summary(NOUN, rows_out=len(built), skipped=not built and not num_trained, note=note)


def _folder(store: Store, config: Config, encoders: tuple[NightEncoder, ...], as_of: date, numbers: str) -> str:
    """The folder of a date's bundle. Its name holds a hash of all inputs, so later nights find it again."""
    # Only rules and reasons read these: a stock that changes every night must not rebuild the past, unless embedded.
    unread = () if any(one.settings.input for one in encoders) else (c.ATTRIBUTES, c.NAME)
    items = store.digest(ITEMS, c.FIRST_SEEN, as_of, without=unread)
    events = store.digest(INTERACTIONS, c.EVENT_DATE, as_of)
    inputs = (*(one.version for one in encoders), as_of, events, items, numbers)
    return artifacts.folder(
        store, NOUN, f"{as_of}-{artifacts.fingerprint(NOUN, config.of_past_dates(), *inputs, modules=_modules(config))}"
    )


def _modules(config: Config) -> tuple[str, ...]:
    """The modules that compute the configured retrievers which are models of their own."""
    names = trained_retrievers.names(config)
    training = ("recspark.training.retrieval.fit",) if set(names) - {trained_retrievers.CO_OCCURRENCE} else ()
    return (*(f"recspark.models.retrievers.{name}" for name in names), *training)


def require_scenarios(config: Config, run_date: date, known: list[Group]) -> None:
    """Warn of scenarios.overrides without any event yet: a misspelling, or a scenario that opens later.

    Not checked if source.users gives lists, which may name scenarios without events.
    Raises: ConfigError if retriever.sequence.target is such a scenario.
    """
    found = [group.scenario for group in known]
    if not found or config.source.users_with_lists is not None:
        return
    target = config.retriever.sequence.target if config.retriever.sequence is not None else None
    for name in sorted({*config.scenarios.overrides, *([target] if target else [])} - set(found)):
        near = difflib.get_close_matches(name, found, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known scenarios: {', '.join(found[:20])}"
        if name == target:
            raise ConfigError(f"retriever.sequence.target: {name} has no event before {run_date}; {hint}")
        log.warning("scenarios.overrides.%s: no event there before %s; %s", name, run_date, hint)
