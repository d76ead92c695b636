"""The torch rankers of a night: `ranker`, and for each further mode of `ranker.transfer` one model for each scenario.

Folder: <warehouse>/models/ranker/<newest window>-<fingerprint>/{evaluated,published}/, and in it `ranker` and
`ranker_<transfer>/<scenario_idx>`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from recspark import model_folder
from recspark.config.schema import Config
from recspark.features import features_of
from recspark.stages.launch import launch, threads
from recspark.stages.ranker.examples import Examples, judged
from recspark.stages.ranker.modes import EVALUATED, JOINT, PUBLISHED, RANKER, mode_of
from recspark.training.ranking.job import TRAINER, RankerJob, RankerModel, Window
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import as_of_day


def folder(store: Store, config: Config, examples: Sequence[Examples]) -> str:
    """The folder of the models of these windows. Its name holds a hash of all inputs, so later nights find it again."""
    inputs = [(window.fingerprint, artifacts.name_of(window.bundle)) for window in examples]
    return artifacts.folder(store, RANKER, f"{examples[0].as_of}-{artifacts.fingerprint(RANKER, config, *inputs)}")


def train(
    store: Store, config: Config, examples: Sequence[Examples], histories: Mapping[date, str], target: str
) -> dict[str, dict[str, int]]:
    """Train all models in one launch, since a launch takes seconds, and save the folder.

    `histories`: as_of -> folder of its shards.

    Returns: copy -> num_epochs and rows of `ranker`.
    Raises: TrainingError if a training diverged or lost a process.
    """
    windows = tuple(Window(as_of_day(w.as_of), w.files, histories[w.as_of], w.bundle) for w in examples)
    num_processes, num_judged = config.training.num_processes, judged(examples, config.model_metrics.num_windows)
    job = RankerJob(
        models=tuple(_models(config, windows, num_judged, target)),
        features=features_of(config.retriever.names),
        tasks=config.training_examples.tasks,
        settings=config.ranker,
        seed=config.seed,
        reader=config.training.reader,
        threads=threads(store.spark, num_processes),
        use_gpu=config.training.use_gpu,
        half_life_days=config.training_examples.half_life_days,
    )
    answer: dict[str, Any] = launch(store.spark, RANKER, TRAINER, job, num_processes, job.use_gpu)["models"]
    copies = {
        name: {"num_epochs": int(answer[name]["num_epochs"]), "rows": int(answer[name]["rows"])}
        for name in (EVALUATED, PUBLISHED)
        if name in answer
    }
    days = [str(window.as_of) for window in examples]
    manifest = {"windows": days, "judged": days[:num_judged], "models": list(copies), RANKER: copies}
    model_folder.save(target, manifest)
    return copies


def _models(config: Config, windows: tuple[Window, ...], num_judged: int, target: str) -> Iterator[RankerModel]:
    """Both copies of `ranker`, then of every other mode for every scenario.

    A copy is named `evaluated` or `published`; of other modes, that and the rest of its path in `target`.
    """
    yield from _copies(windows, num_judged, target, RANKER)
    scenarios = sorted(set(model_folder.read_manifest(windows[0].bundle)["scenarios"].values()))
    for transfer in config.ranker.transfer:
        for scenario in scenarios if transfer != JOINT else ():
            place = f"{mode_of(transfer)}/{scenario}"
            yield from _copies(windows, num_judged, target, place, transfer, scenario)


def _copies(
    windows: tuple[Window, ...],
    num_judged: int,
    target: str,
    place: str,
    transfer: str = JOINT,
    scenario: int | None = None,
) -> Iterator[RankerModel]:
    """`evaluated`, if there are windows before those to judge on; then `published`, trained for as many epochs."""
    first, second = (copy if place == RANKER else f"{copy}/{place}" for copy in (EVALUATED, PUBLISHED))
    published = RankerModel(second, f"{target}/{PUBLISHED}/{place}", windows, mode=transfer, target=scenario)
    if len(windows) > num_judged:
        yield replace(published, name=first, folder=f"{target}/{EVALUATED}/{place}", windows=windows[num_judged:])
        published = replace(published, epochs_of=first)
    yield published
