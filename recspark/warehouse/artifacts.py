"""Every artefact of a night: the configuration and code that it depends on, its fingerprint and its folder.

Model folders are `<warehouse>/models/<artefact>/<date>-<fingerprint>`. Beside them a pointer file
`<date>-<hash of settings>.txt` names the folder of a date with these settings, so that readers need not know its
inputs.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import date

from recspark import model_folder
from recspark.config.schema import Config
from recspark.errors import DataError
from recspark.warehouse.code import code_hash
from recspark.warehouse.state import WRITTEN_FORMAT
from recspark.warehouse.store import Store, Table

FINGERPRINT = "fingerprint"  # in a commit's metadata
# Settings of Spark's SQL for speed and places, which change no row: `spark.sql.<one of these>...`
NOT_MEANING = (
    "adaptive.", "auto", "broadcast", "catalog", "codegen.", "debug.", "execution.", "extensions", "files.", "inMemory",
    "shuffle.", "sources.", "streaming.", "ui.", "warehouse.dir",
)  # fmt: skip


@dataclass(frozen=True)
class Artifact:
    """What an artefact depends on beside its input data, which its stage passes to `fingerprint`.

    `keys`: the dotted keys of the configuration that it reads. `modules`: the modules that compute it; their imports
    count too.
    """

    keys: tuple[str, ...]
    modules: tuple[str, ...]


_EVENTS = "interactions.event_weights"
_LABELS = ("training_examples.tasks", "training_examples.label_days")
_WINDOWS = ("training_examples.num_windows", "model_metrics.num_windows")
_STAGES = "recspark.stages"
_WITH_FEATURES = ("format", "paths", "table", "options", "where", "event_time", "features")  # keys of a source

ARTIFACTS = {
    # tables
    "interactions": Artifact(("source.interactions", "interactions.unknown_items"), (f"{_STAGES}.interactions",)),
    "items": Artifact(("source.items",), (f"{_STAGES}.items",)),
    "item_facts": Artifact(("item_facts.relations",), (f"{_STAGES}.item_facts",)),
    "item_embeddings": Artifact(("item_embeddings", "source.items.media_roots"), (f"{_STAGES}.item_embeddings.stage",)),
    "candidates": Artifact(
        ("candidates.depth", "candidates.source", "recommendations.k", "scenarios", *_LABELS, _EVENTS, "seed"),
        (f"{_STAGES}.candidates.stage",),
    ),
    "training_examples": Artifact((*_LABELS, _EVENTS, "seed"), (f"{_STAGES}.training_examples",)),
    "model_metrics": Artifact(
        ("model_metrics", "recommendations.k", "scenarios", *_LABELS, _EVENTS, "seed"),
        (f"{_STAGES}.model_metrics.stage",),
    ),
    "recommendations": Artifact(
        ("recommendations", "scenarios", "source.users", "candidates.source", "item_facts.reasons"),
        (f"{_STAGES}.recommendations",),
    ),
    "item_features": Artifact(
        tuple(f"source.items.{key}" for key in ("item_id", *_WITH_FEATURES)), (f"{_STAGES}.given_features",)
    ),
    "user_features": Artifact(
        tuple(f"source.users.{key}" for key in ("user_id", *_WITH_FEATURES)), (f"{_STAGES}.given_features",)
    ),
    # model folders
    "given_features": Artifact(("source.items.features", "source.users.features"), ("recspark.tables.given_features",)),
    "text_adapter": Artifact(
        ("text_adapter", _EVENTS, "seed"), (f"{_STAGES}.text_adapter", "recspark.training.content.text_adapter")
    ),
    "fact_model": Artifact(
        ("item_facts.relations", "item_facts.embedding", "seed"),
        (f"{_STAGES}.item_embeddings.facts", "recspark.training.content.facts"),
    ),
    "time_scales": Artifact(
        (*_WINDOWS, *_LABELS, "retriever.popular", "candidates.depth", _EVENTS),
        (f"{_STAGES}.time_scales",),
    ),
    "item_rules": Artifact((), (f"{_STAGES}.item_rules",)),
    "retriever": Artifact(("retriever", "scenarios", _EVENTS, "seed"), (f"{_STAGES}.retriever.bundle",)),
    "ranker": Artifact(
        ("ranker", "training_examples.tasks", "training_examples.half_life_days", "model_metrics.num_windows", "seed"),
        (f"{_STAGES}.ranker.neural", "recspark.training.ranking.fit"),
    ),
    "gbdt": Artifact(
        ("gbdt", "training_examples.tasks", "training_examples.half_life_days", "model_metrics.num_windows", "seed"),
        (f"{_STAGES}.ranker.boosted",),
    ),
}


def fingerprint(artifact: str, config: Config, *inputs: object, modules: tuple[str, ...] = ()) -> str:
    """Hash of everything that an artefact depends on: code, libraries, configuration keys and data, 16 hex digits.

    `inputs`: values that identify its data. `modules`: further modules that compute it with this configuration.
    """
    spec = ARTIFACTS[artifact]
    code = code_hash((*spec.modules, *modules))
    parts = [
        WRITTEN_FORMAT,
        code,
        config.digest(*spec.keys),
        *map(str, inputs),
        *sorted(_spark_settings(config).items()),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _spark_settings(config: Config) -> dict[str, str]:
    """The settings of Spark's SQL that the configuration names and that may change what an expression means."""
    sql = {key: value for key, value in config.spark.items() if key.startswith("spark.sql.")}
    return {key: value for key, value in sql.items() if not key.removeprefix("spark.sql.").startswith(NOT_MEANING)}


def is_fresh(store: Store, table: Table, day: date, expected: str) -> bool:
    """Has the table the expected fingerprint: of its newest commit, or confirmed by a run of this date?"""
    if store.is_fresh(table, expected):
        return True
    return store.exists(table) and model_folder.read_file(_note(store, table.noun, day, expected)) == store.token(table)


def confirm(store: Store, table: Table, day: date, current: str) -> None:
    """Write to a file that the table's rows have this fingerprint, since a run without changes makes no commit."""
    model_folder.write_file(_note(store, table.noun, day, current), store.token(table))


def folder(store: Store, artifact: str, name: str) -> str:
    """The path of a model folder, which need not exist."""
    return f"{store.models(artifact)}/{name}"


def name_of(path: str) -> str:
    """The last part of a model folder's path: date and fingerprint, the same in any warehouse."""
    return path.rstrip("/").rsplit("/", 1)[-1]


def point(store: Store, config: Config, artifact: str, day: date, path: str) -> None:
    """Write the pointer file of a date with these settings, unless it has this content already."""
    note, name = _note(store, artifact, day, _settings(config, artifact)), name_of(path)
    if model_folder.read_file(note) != name:
        model_folder.write_file(note, name)


def forget(store: Store, config: Config, artifact: str, day: date) -> None:
    """Remove the pointer file of a date with these settings, as when all events before it were removed."""
    model_folder.remove(_note(store, artifact, day, _settings(config, artifact)))


def find(store: Store, config: Config, artifact: str, day: date) -> str | None:
    """The folder of a date with these settings; None if there is none."""
    name = model_folder.read_file(_note(store, artifact, day, _settings(config, artifact)))
    path = None if name is None else folder(store, artifact, name)
    return path if path is not None and model_folder.exists(path) else None


def require(store: Store, config: Config, artifact: str, day: date, job: str) -> str:
    """The folder of a date, see `find`.

    Raises: DataError if there is none, naming the job that makes it.
    """
    path = find(store, config, artifact, day)
    if path is None:
        raise DataError(
            f"no {artifact} as of {day} with these settings in {store.models(artifact)}; run jobs/{job}.py or "
            "jobs/nightly.py first"
        )
    return path


def _settings(config: Config, artifact: str) -> str:
    return config.of_past_dates().digest(*ARTIFACTS[artifact].keys)


def _note(store: Store, artifact: str, day: date, about: str) -> str:
    """A file of one line beside an artefact's folders."""
    return f"{store.models(artifact)}/{day}-{about}.txt"
