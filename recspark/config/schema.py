"""The configuration as frozen, strict types (load.py reads them from YAML). A section has the name of the artefact it
is about; a key without a default is required."""

import hashlib
import json
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recspark.config.content import ItemEmbeddings, ItemFacts, TextAdapter
from recspark.config.section import Section
from recspark.config.sources import CandidateSource, Sources

# The `source` of a candidate; the order breaks ties. The section `retriever` turns them on and off.
RETRIEVERS = (
    "linear", "co_occurrence", "matrix_factorization", "sequence", "content_towers", "content_map", "content",
    "popular",
)  # fmt: skip


class AtMost(Section):
    """At most `items` items with the same value of `of` in one list; null values have no limit."""

    items: Annotated[int, Field(ge=1)]
    of: str  # Spark SQL, over the same columns as `where`


class ScenarioRule(Section):
    """Who gets a list in a scenario, and what may be in it."""

    users: Literal["own", "all"] = "own"  # who gets a list: users with an event in this scenario, or in any
    items: Literal["own", "all"] = "all"  # what may be in it: items with an event in this scenario, or all
    seen: Literal["exclude", "allow"] = "exclude"  # items that the user has interacted with, in any scenario
    # Both apply to tonight's lists only: the stock of a past night is not known.
    where: str | None = None  # the items that may be listed, in Spark SQL over the columns of `items` and run_date
    at_most: AtMost | None = None  # items over the limit are used only if fewer than k others remain


class Scenarios(Section):
    """The rules of the scenarios, and how small ones are modelled."""

    min_users: Annotated[int, Field(ge=1)] = 100  # scenarios with fewer users are modelled as one group
    default: ScenarioRule = ScenarioRule()
    overrides: dict[str, ScenarioRule] = {}  # by raw scenario

    def rule(self, scenario: str) -> ScenarioRule:
        """The rule of one raw scenario."""
        return self.overrides.get(scenario, self.default)

    @property
    def by_key(self) -> dict[str, ScenarioRule]:
        """Every rule, by its dotted key."""
        named = {f"scenarios.overrides.{name}": rule for name, rule in self.overrides.items()}
        return {"scenarios.default": self.default, **named}


class Interactions(Section):
    """What events count, and which are rejected."""

    event_weights: dict[str, float] = {}  # event -> weight, 1 for others; a negative one undoes an event (a return)
    unknown_items: Literal["keep", "reject"] = "keep"  # events whose item_id is not in source.items


class Linear(Section):
    """EASE (Steck 2019), with exponential decay of interactions."""

    l2: Annotated[float, Field(gt=0)] = 100.0
    half_life_days: Annotated[float, Field(gt=0)] = 56.0


class CoOccurrence(Section):
    """Item-to-item similarity from common users (Deshpande & Karypis 2004): sparse, for a catalogue of any size."""

    pair_half_life_days: Annotated[float, Field(gt=0)] = float("inf")  # half the weight for a pair this far apart
    half_life_days: Annotated[float, Field(gt=0)] = 56.0
    shrinkage: Annotated[float, Field(ge=0)] = 5.0
    neighbours: Annotated[int, Field(ge=1)] = 200  # kept of each item
    history: Annotated[int, Field(ge=2)] = 100  # the newest events of a user that make pairs


class MatrixFactorization(Section):
    """Truncated SVD of the user-item matrix."""

    num_factors: Annotated[int, Field(ge=1)] = 64
    item_power: Annotated[float, Field(ge=0)] = 0.5
    half_life_days: Annotated[float, Field(gt=0)] = 56.0


class Sequence(Section):
    """A transformer over the user's events of all scenarios, in order of time."""

    # joint: all scenarios together; adapter: the same, with an adapter for each scenario; finetune: first all other
    # scenarios, then `target`; single: `target` alone
    mode: Literal["joint", "adapter", "finetune", "single"] = "joint"
    target: str | None = None  # raw scenario; then only its lists get candidates
    dim: Annotated[int, Field(ge=2)] = 64
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 2
    length: Annotated[int, Field(ge=1, le=50)] = 50
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    negatives: Annotated[int, Field(ge=1)] = 512
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    max_epochs: Annotated[int, Field(ge=1)] = 30

    @model_validator(mode="after")
    def _target(self) -> "Sequence":
        if (self.mode in ("finetune", "single")) != (self.target is not None):
            raise ValueError("modes `finetune` and `single` need `target: <scenario>`; `joint` and `adapter` take none")
        return self


class ContentTowers(Section):
    """Two towers over content embeddings."""

    dim: Annotated[int, Field(ge=1)] = 128
    negatives: Annotated[int, Field(ge=1)] = 1024
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    max_epochs: Annotated[int, Field(ge=1)] = 5


class ContentMap(Section):
    """Content embeddings mapped to latent factors of behaviour, for items without any interaction."""

    num_factors: Annotated[int, Field(ge=1)] = 64


class Popular(Section):
    """The number of recent events of an item, with exponential decay."""

    # left out of the YAML, the night chooses it from past windows (stages/time_scales.py)
    half_life_days: Annotated[float, Field(gt=0)] = 14.0
    shrinkage: Annotated[float, Field(ge=0)] = 100.0  # the weight of the list of all scenarios, in events


class Retriever(Section):
    """`name: {}` turns a retriever on with its defaults, `name: null` turns it off; `content` and `popular` are always
    on."""

    linear: Linear | None = Linear()
    co_occurrence: CoOccurrence | None = None
    matrix_factorization: MatrixFactorization | None = None
    sequence: Sequence | None = None
    content_towers: ContentTowers | None = None
    content_map: ContentMap | None = None
    popular: Popular = Popular()

    @property
    def names(self) -> tuple[str, ...]:
        """The retrievers that are on, in the order of RETRIEVERS."""
        return tuple(name for name in RETRIEVERS if name == "content" or getattr(self, name) is not None)


class Candidates(Section):
    """How many items each retriever gives to the ranker."""

    depth: Annotated[int, Field(ge=1)] = 60  # items of each retriever, per user and scenario
    block_users: Annotated[int, Field(ge=1)] = 512  # memory per worker: this x items x 4 bytes
    source: CandidateSource | None = None  # tonight's candidates; those of past nights come from the retrievers


class Task(Section):
    """A label: what a user did with a candidate within the window.

    In YAML, `kind: multilabel` with `labels: {name: sql}` is short for a binary task <task>_<name> for each label.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["binary", "regression"]
    sql: str  # an aggregate over the window's events of one (scenario, user, item); `weight` is the event's weight
    loss_weight: Annotated[float, Field(gt=0)] = 1.0
    given: str | None = None  # the previous task of a funnel: its probability is a factor of this one's


class TrainingExamples(Section):
    """The labels, and the past windows that the ranker learns from."""

    tasks: tuple[Task, ...] = (Task(name="interaction", kind="binary", sql="sum(weight) > 0"),)  # the first one ranks
    # left out of the YAML, the night chooses these two from past windows (stages/time_scales.py)
    label_days: Annotated[int, Field(ge=1)] = 28
    num_windows: Annotated[int, Field(ge=2)] = 3  # closed windows; the newest is the test, so at least two
    half_life_days: Annotated[float, Field(gt=0)] | None = None  # of the weights of older windows; None: equal weights

    @field_validator("tasks", mode="before")
    @classmethod
    def _labels(cls, tasks: Any) -> Any:
        """Replace each `multilabel` task by a binary task for each label."""
        return [one for task in tasks for one in _binary_tasks(task)] if isinstance(tasks, list | tuple) else tasks

    @model_validator(mode="after")
    def _tasks(self) -> "TrainingExamples":
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) != len(names) or self.tasks[0].kind != "binary":
            raise ValueError("expected tasks with distinct names, and a binary one first: the lists are ranked by it")
        named = {task.name: task for task in self.tasks}
        for task in self.tasks:
            steps = [task.name]
            while (before := named[steps[-1]].given) is not None:
                if before not in named or before in steps or {task.kind, named[before].kind} != {"binary"}:
                    raise ValueError(f"task {steps[-1]}: given {before}, expected another binary task and no circle")
                steps.append(before)
        return self


def _binary_tasks(task: Any) -> list[Any]:
    """The binary tasks of a `multilabel` task of the YAML file; any other task unchanged."""
    if not isinstance(task, dict) or task.get("kind") != "multilabel":
        return [task]
    labels = task.get("labels")
    if not isinstance(labels, dict) or not labels or "sql" in task:
        raise ValueError("kind multilabel needs `labels: {name: sql}`, and no `sql`")
    rest = {key: value for key, value in task.items() if key != "labels"} | {"kind": "binary"}
    return [{**rest, "name": f"{task.get('name')}_{label}", "sql": sql} for label, sql in labels.items()]


class Training(Section):
    """How trainings run: data reader, processes, device."""

    reader: Literal["petastorm", "arrow", "auto"] = "auto"
    num_processes: Annotated[int, Field(ge=1)] = 1
    use_gpu: bool = False


class Ranker(Section):
    """The torch ranker and its transfers: `joint` is the mode `ranker`, any other is a mode `ranker_<transfer>`, with
    one training for each target (a scenario, or the group of small ones)."""

    transfer: tuple[
        Literal["joint", "alone", "finetune", "reweight", "adversarial", "mmd", "distill", "augment"], ...
    ] = ("joint",)
    model: Literal["single", "shared_bottom", "mmoe", "ple", "star", "pepnet", "attention"] = "shared_bottom"
    cross_layers: Annotated[int, Field(ge=0)] = 0  # of DCN-v2, parallel to the model
    fusion: Literal["attention", "gate", "concat"] = "attention"  # of several content encoders
    task_weighting: Literal["fixed", "uncertainty"] = "fixed"  # uncertainty: learnt, times the tasks' loss_weight
    int8: bool = False  # score in 8 bits; the manifest has the loss of quality on the validation users
    embedding_dim: Annotated[int, Field(ge=1)] = 32
    min_item_rows: Annotated[int, Field(ge=1)] = 5  # of 100,000; items with fewer share one id embedding
    item_buckets: Annotated[int, Field(ge=1)] | None = None  # that many id embeddings, shared by hash: large catalogues
    hidden: tuple[int, ...] = (128, 64)
    history_length: Annotated[int, Field(ge=1, le=50)] = 50
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_rows: Annotated[int, Field(ge=1)] = 600_000  # of the newest windows: older ones are left out, gbdt has them
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    batch_size: Annotated[int, Field(ge=1)] | None = None  # None: about 300 steps an epoch, of 256 to 8192 rows
    max_epochs: Annotated[int, Field(ge=1)] = 4
    patience: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _transfer(self) -> "Ranker":
        if "joint" not in self.transfer or len(set(self.transfer)) != len(self.transfer):
            raise ValueError("transfer needs distinct modes, `joint` among them: the others fall back to it")
        aligned = sorted({"adversarial", "mmd"} & set(self.transfer))
        if aligned and self.model not in ("shared_bottom", "attention"):
            raise ValueError(
                f"transfer {aligned} needs model shared_bottom or attention: a hidden layer that all scenarios share"
            )
        return self


class Gbdt(Section):
    """LightGBM on the same features."""

    max_rows: Annotated[int, Field(ge=1)] = 1_000_000
    max_rounds: Annotated[int, Field(ge=1)] = 400
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    num_leaves: Annotated[int, Field(ge=2)] = 31
    objective: Literal["rank_xendcg", "lambdarank"] = "rank_xendcg"


class Recommendations(Section):
    """The published lists."""

    k: Annotated[int, Field(ge=1)] = 10  # items in each list


class ModelMetrics(Section):
    """How metrics are measured."""

    # closed windows on which modes are judged, by models of older ones; left out of the YAML, the night chooses it
    num_windows: Annotated[int, Field(ge=1)] = 1
    bootstrap: Annotated[int, Field(ge=10)] = 200  # samples of users for the confidence intervals


class Maintenance(Section):
    """What is kept when old data is removed."""

    retention_hours: Annotated[float, Field(ge=0)] = 168.0  # of replaced data files, for time travel
    keep_nights: Annotated[int, Field(ge=1)] = 35  # model folders and candidates of older nights are removed


class Config(Section):
    """The whole file."""

    warehouse: str  # folder or URL for tables and models
    catalog: str | None = None  # catalog.schema: tables there instead of in folders; models stay in the warehouse
    tables: dict[str, str] = {}  # artefact -> table name, where it differs
    run_date: date | None = None  # default: today, UTC
    seed: int = 0
    source: Sources
    scenarios: Scenarios = Scenarios()
    interactions: Interactions = Interactions()
    item_facts: ItemFacts | None = None
    text_adapter: TextAdapter | None = None  # None: off
    item_embeddings: ItemEmbeddings = ItemEmbeddings()
    retriever: Retriever = Retriever()
    candidates: Candidates = Candidates()
    training_examples: TrainingExamples = TrainingExamples()
    training: Training = Training()
    ranker: Ranker = Ranker()
    gbdt: Gbdt = Gbdt()
    recommendations: Recommendations = Recommendations()
    model_metrics: ModelMetrics = ModelMetrics()
    maintenance: Maintenance = Maintenance()
    spark: dict[str, str] = {}  # session settings, as Spark names them

    @model_validator(mode="after")
    def _depth(self) -> "Config":
        depth, k = self.candidates.depth, self.recommendations.k
        if depth < k:
            raise ValueError(f"candidates.depth: found {depth}, expected at least recommendations.k = {k}; raise it")
        return self

    @model_validator(mode="after")
    def _given(self) -> "Config":
        for key, rule in self.scenarios.by_key.items() if self.candidates.source is not None else ():
            if rule.where is not None or rule.at_most is not None:
                raise ValueError(
                    f"candidates.source: exactly its rows are ranked, found {key} with `where` or `at_most`, which "
                    "would leave some out; apply the rule to the source's rows, or remove one of the two"
                )
        return self

    def of_past_dates(self) -> "Config":
        """What past dates depend on: neither item rules nor given candidates, which so rebuild none of them."""
        tonight = {"where": None, "at_most": None}
        default = self.scenarios.default.model_copy(update=tonight)
        others = {name: rule.model_copy(update=tonight) for name, rule in self.scenarios.overrides.items()}
        lasting = {name: rule for name, rule in others.items() if rule != default}
        scenarios = self.scenarios.model_copy(update={"default": default, "overrides": lasting})
        candidates = self.candidates.model_copy(update={"source": None})
        return self.model_copy(update={"scenarios": scenarios, "candidates": candidates})

    def digest(self, *keys: str) -> str:
        """Hash of the values under some dotted keys (`ranker`, `scenarios.min_users`), for a fingerprint.

        What is off (null, false, empty) counts as if it were not there: a new key that is off by default changes no
        fingerprint of an existing warehouse.
        """
        dumped = self.model_dump(mode="json")
        found = {key: _switched_on(_under(dumped, key)) for key in keys}
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _under(tree: Any, key: str) -> Any:
    """The value of a dotted key; None below a section that is null."""
    for part in key.split("."):
        tree = None if tree is None else tree[part]
    return tree


def _switched_on(tree: Any) -> Any:
    """Without null, false and empty values at any depth of its sections."""
    if isinstance(tree, list):
        return [_switched_on(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    inner = {key: _switched_on(value) for key, value in tree.items()}
    return {key: value for key, value in inner.items() if not (value is None or value is False or value in ([], ""))}
