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
from recspark.stages.ranker.examples import Examples, judged, newest
from recspark.stages.ranker.modes import EVALUATED, JOINT, PUBLISHED, RANKER, mode_of
from recspark.training.ranking.job import TRAINER, RankerJob, RankerModel, Window
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import as_of_day


def folder(store: Store, config: Config, examples: Sequence[Examples]) -> str:
    """The folder of the models of these windows. Its name holds a hash of all inputs, so later nights find it again."""
    inputs = [(window.fingerprint, artifacts.name_of(window.bundle), *window.inputs[1:]) for window in examples]
    return artifacts.folder(store, RANKER, f"{examples[0].as_of}-{artifacts.fingerprint(RANKER, config, *inputs)}")


def train(
    store: Store, config: Config, examples: Sequence[Examples], histories: Mapping[date, str], target: str
) -> dict[str, dict[str, int]]:
    """Train all models in one launch, since a launch takes seconds, and save the folder.

    `histories`: as_of -> folder of its shards.

    Returns: copy -> num_epochs and rows of `ranker`.
    Raises: TrainingError if a training diverged or lost a process.
    """
    num_processes, num_judged = config.training.num_processes, judged(examples, config.model_metrics.num_windows)
    published, evaluated = windows_of(config, examples, histories)
    job = RankerJob(
        models=tuple(_models(config, published, evaluated, target)),
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


def windows_of(
    config: Config, examples: Sequence[Examples], histories: Mapping[date, str]
) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
    """The windows that the published copies learn from, and those of the evaluated ones, which are older than the ones
    to judge on; each the newest with at most `ranker.max_rows` examples."""
    older = examples[judged(examples, config.model_metrics.num_windows) :]
    published, evaluated = (newest(part, config.ranker.max_rows) if part else () for part in (examples, older))
    made = {w.as_of: Window(as_of_day(w.as_of), w.files, histories[w.as_of], w.bundle, w.given) for w in examples}
    return tuple(made[w.as_of] for w in published), tuple(made[w.as_of] for w in evaluated)


def _models(
    config: Config, published: tuple[Window, ...], evaluated: tuple[Window, ...], target: str
) -> Iterator[RankerModel]:
    """Both copies of `ranker`, then of every other mode for every scenario.

    A copy is named `evaluated` or `published`; of other modes, that and the rest of its path in `target`.
    """
    yield from _copies(published, evaluated, target, RANKER)
    scenarios = sorted(set(model_folder.read_manifest(published[0].bundle)["scenarios"].values()))
    for transfer in config.ranker.transfer:
        for scenario in scenarios if transfer != JOINT else ():
            place = f"{mode_of(transfer)}/{scenario}"
            yield from _copies(published, evaluated, target, place, transfer, scenario)


def _copies(
    published: tuple[Window, ...],
    evaluated: tuple[Window, ...],
    target: str,
    place: str,
    transfer: str = JOINT,
    scenario: int | None = None,
) -> Iterator[RankerModel]:
    """`evaluated`, if there are windows for it; then `published`, trained for as many epochs."""
    first, second = (copy if place == RANKER else f"{copy}/{place}" for copy in (EVALUATED, PUBLISHED))
    last = RankerModel(second, f"{target}/{PUBLISHED}/{place}", published, mode=transfer, target=scenario)
    if evaluated:
        yield replace(last, name=first, folder=f"{target}/{EVALUATED}/{place}", windows=evaluated)
        last = replace(last, epochs_of=first)
    yield last
