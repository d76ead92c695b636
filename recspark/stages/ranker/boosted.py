"""The boosted trees of a night (LightGBM), trained on the driver.

Folder: <warehouse>/models/gbdt/<newest window>-<fingerprint>/{evaluated,published}.
Memory: at most gbdt.max_rows rows, 4 bytes for each feature, three copies of them during training.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.features import features_of
from recspark.given_features import (
    Coding,
    FeatureBook,
    fit_coding,
    numbers_and_codes,
    to_arrays,
    tree_columns,
    tree_names,
)
from recspark.stages.ranker.examples import Examples, judged
from recspark.stages.ranker.modes import EVALUATED, GBDT, PUBLISHED
from recspark.tables import training_examples
from recspark.training.feed.users import read_lists
from recspark.training.ranking.job import AS_OF_DAY
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import as_of_day, exponential_decay

GIVEN, IMPORTANCE = "given", "importance"  # in a model's manifest: of the features that the configuration names


def folder(store: Store, config: Config, examples: Sequence[Examples]) -> str:
    """The folder of the models of these windows. Its name holds a hash of all inputs, so later nights find it again."""
    inputs = [part for window in examples for part in window.inputs]
    return artifacts.folder(store, GBDT, f"{examples[0].as_of}-{artifacts.fingerprint(GBDT, config, *inputs)}")


def train(config: Config, examples: Sequence[Examples], target: str) -> dict[str, dict[str, int]]:
    """Train both copies and save the folder.

    Returns: copy -> num_rounds and rows.
    Raises: DataError if no list has a positive.
    """
    copies: dict[str, dict[str, int]] = {}
    num_rounds = None
    num_judged = judged(examples, config.model_metrics.num_windows)
    if len(examples) > num_judged:
        copies[EVALUATED] = _fit(config, examples[num_judged:], f"{target}/{EVALUATED}", None)
        num_rounds = copies[EVALUATED]["num_rounds"]
    copies[PUBLISHED] = _fit(config, examples, f"{target}/{PUBLISHED}", num_rounds)
    windows = [str(window.as_of) for window in examples]
    manifest = {"windows": windows, "judged": windows[:num_judged], "models": list(copies), GBDT: copies}
    model_folder.save(target, manifest)
    return copies


def importance(folder: str) -> dict[str, float]:
    """The features that the configuration names, the most important first: their shares of the gain of all splits, of
    the published copy. Empty where it names none."""
    found = model_folder.read_manifest(f"{folder}/{PUBLISHED}").get(IMPORTANCE, {})
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _fit(config: Config, examples: Sequence[Examples], target: str, num_rounds: int | None) -> dict[str, int]:
    """Train one copy: `num_rounds` on all users, or without it with early stopping, each member on another tenth of the
    users."""
    if not model_folder.exists(target):
        from recspark.models.rankers import gbdt  # here: only a night that trains imports LightGBM

        keys = (AS_OF_DAY, c.SCENARIO_IDX, c.USER_IDX, c.ITEM_IDX)
        label = training_examples.label_column(config.training_examples.tasks[0].name)
        files = [file for window in examples for file in window.files]
        names = features_of(config.retriever.names)
        columns = [*keys, *names, label, c.FOLD]
        rows = read_lists(files, columns, keys[:3], label, config.gbdt.max_rows, config.seed)
        if not len(rows[label]):
            raise DataError(
                f"gbdt: found no positive in {len(examples)} windows, expected some; widen the label windows"
            )
        features = np.column_stack([rows.pop(name) for name in names])
        key = np.column_stack([rows[name] for name in keys])
        given = _given(examples, key)
        half_life, day = config.training_examples.half_life_days, rows[AS_OF_DAY]
        weights = exponential_decay(int(day.max()) - day, half_life) if half_life else None
        categories: tuple[str, ...] = ()
        if given is not None:
            coding, columns_of_given = given
            more, categories = tree_names(coding)
            features, names = np.column_stack((features, columns_of_given)), (*names, *more)
        model = gbdt.fit_ensemble(
            features, rows[label], key, rows[c.FOLD], names, config.gbdt, config.seed, num_rounds,
            weights=weights, categories=categories,
        )  # fmt: skip
        manifest, texts = gbdt.to_texts(model)
        arrays: dict[str, Array] = {}
        if given is not None:
            described, arrays = to_arrays(coding)
            manifest |= {GIVEN: described, IMPORTANCE: _rounded(gbdt.importance(model), tree_names(coding)[0])}
        model_folder.save(target, manifest, arrays, texts=texts)
    manifest = model_folder.read_manifest(target)
    members = manifest["members"]
    num_rounds = max(1, round(float(np.mean([one["num_rounds"] for one in members]))))
    return {"num_rounds": num_rounds, "rows": members[0]["num_rows"]}


def _given(examples: Sequence[Examples], key: Array) -> tuple[Coding, Array] | None:
    """How trees read the features that the configuration names, and their columns for rows with these keys (n, 4);
    None where it names none."""
    folders = {as_of_day(window.as_of): window.given for window in examples if window.given is not None}
    if not folders:
        return None
    book, (day, _, user, item) = FeatureBook(folders), key.T
    coding = fit_coding(book, user, item, day)
    return coding, tree_columns(coding, *numbers_and_codes(book, coding, user, item, day))


def _rounded(shares: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: round(shares[name], 4) for name in names}
