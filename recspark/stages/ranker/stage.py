"""ranker: the models that order candidates, trained on past windows. Two kinds (torch, LightGBM), two copies of each.

`evaluated` is trained on the windows before the newest ones, on which model_metrics judges the modes, with early
stopping on a tenth of its users. `published` is trained on all windows, for as many epochs as
`evaluated` was. `ranker.transfer` adds torch rankers of one scenario each, trained with or without the other scenarios.
"""

import logging
import time
from datetime import date

from recspark import model_folder
from recspark.config.schema import Config
from recspark.stages.ranker import boosted, neural
from recspark.stages.ranker.examples import examples_of
from recspark.stages.ranker.modes import GBDT, RANKER
from recspark.summary import Summary
from recspark.tables import histories
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

log = logging.getLogger(__name__)

MOST_NAMED = 10  # features in the note
LEAKING = 0.9  # of the importance: such a feature may be the label in disguise


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Train each kind that has no models for the present windows.

    Raises: DataError without examples, TrainingError if a training diverged or lost a process.
    """
    examples = examples_of(store, config, run_date)
    shards = {w.as_of: histories.ensure_shards(store, config, w.as_of, w.bundle) for w in examples}
    folders = {RANKER: neural.folder(store, config, examples), GBDT: boosted.folder(store, config, examples)}
    missing = [kind for kind, path in folders.items() if force or not model_folder.exists(path)]
    notes, rows, num_models = [], 0, 0
    for kind in missing:
        began, path = time.monotonic(), folders[kind]
        if force:
            model_folder.remove(path)
        trained = (
            neural.train(store, config, examples, shards, path)
            if kind == RANKER
            else boosted.train(config, examples, path)
        )
        notes.append(f"{kind} {time.monotonic() - began:.0f} s")
        rows += sum(copy["rows"] for copy in trained.values()) if kind == RANKER else 0
        num_models += len(trained) * (len(config.ranker.transfer) if kind == RANKER else 1)
    for kind, path in folders.items():
        artifacts.point(store, config, kind, run_date, path)
    windows = f"windows {examples[-1].as_of} to {examples[0].as_of}"
    note = f"{windows}: {', '.join(notes)}" if notes else f"{windows} have their models"
    note += _worth_of_given(folders[GBDT])
    log.info("ranker: %s", note)
    return Summary(RANKER, rows_in=rows, rows_out=num_models, skipped=not missing, note=note)


def _worth_of_given(trees: str) -> str:
    """What the configuration's features are worth to gbdt, for the note; logs a warning of one that is nearly all."""
    worth = {name.removeprefix("given_"): share for name, share in boosted.importance(trees).items()}
    for name, share in worth.items():
        if share > LEAKING:
            log.warning(
                "%s has %.0f %% of the importance in gbdt: does it hold what happens after the date? If so, give its "
                "source an event_time, or remove it",
                name,
                100 * share,
            )
    if not worth:
        return ""
    shares = ", ".join(f"{name} {share:.3f}" for name, share in [*worth.items()][:MOST_NAMED])
    return f"; importance of the configuration's features in gbdt: {shares}"
