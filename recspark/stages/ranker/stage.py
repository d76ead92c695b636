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
    log.info("ranker: %s", note)
    return Summary(RANKER, rows_in=rows, rows_out=num_models, skipped=not missing, note=note)
