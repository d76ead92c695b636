"""The YAML file, which config_file.py reads, as frozen, strict types. A section is named by the artefact it shapes;
required means no default."""

import hashlib
import json
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recspark.config.content import ItemEmbeddings, ItemFacts, Section, TextAdapter

# A candidate's `source`; the order breaks ties. Which of them work is the section `retriever`'s to say.
RETRIEVERS = (
    "linear", "co_occurrence", "matrix_factorization", "sequence", "content_towers", "content_map", "content",
    "popular",
)  # fmt: skip


class Source(Section):
    """Where raw rows come from, in the words of `spark.read`."""

    format: Literal["parquet", "csv", "json", "delta", "table"]
    paths: tuple[str, ...] = ()  # for every format but `table`
    table: str | None = None  # catalog.schema.table
    options: dict[str, str] = {}  # reader options, as Spark names them
    where: str | None = None  # rows that do not match are not part of the raw snapshot

    @model_validator(mode="after")
    def _place(self) -> "Source":
        if (self.format == "table") != (self.table is not None) or (self.format != "table") != bool(self.paths):
            raise ValueError(
                "format `table` needs `table: catalog.schema.name`; every other format needs `paths: [...]`"
            )
        return self


class InteractionSource(Source):
    """Spark SQL expressions over the raw columns."""

    scenario: str
    user_id: str
    item_id: str
    event_time: str
    event: str = "'interaction'"
    value: str = "CAST(NULL AS DOUBLE)"
    context: dict[str, str] = {}  # name -> expression: quantity, price, place, device ...


class ItemSource(Source):
    item_id: str
    text: str = "CAST(NULL AS STRING)"
    attributes: dict[str, str] = {}
    media: str = "CAST(NULL AS STRING)"
    event_time: str | None = None  # when the row became known; later rows than run_date are not read
    keep: Literal["first", "last"] = "last"  # which row of an item counts, by event_time


class UserSource(Source):
    """Users who get a list although they may have no event."""

    scenario: str
    user_id: str


class CandidateSource(Source):
    """Somebody else's candidates for tonight: exactly these rows are ranked, up to k a list."""

    scenario: str = "scenario"
    user_id: str = "user_id"
    item_id: str = "item_id"


class Sources(Section):
    interactions: InteractionSource
    items: ItemSource | None = None
    users: UserSource | None = None


class AtMost(Section):
    """So many items of every value of `of`, an expression as `where` is, in one list; null values have no limit."""

    items: Annotated[int, Field(ge=1)]
    of: str


class ScenarioRule(Section):
    users: Literal["own", "all"] = "own"  # who gets a list: users with an event here, or anywhere
    items: Literal["own", "all"] = "all"  # what can be in it: items with an event here, or any
    seen: Literal["exclude", "allow"] = "exclude"  # may an item return that the user had in any scenario
    # Both for tonight's lists alone: the stock of a past night is not known. What is beyond `at_most` comes last.
    where: str | None = None  # the items that may be listed, in Spark SQL over the columns of `items` and run_date
    at_most: AtMost | None = None


class Scenarios(Section):
    min_users: Annotated[int, Field(ge=1)] = 100  # smaller scenarios are modelled as one group
    default: ScenarioRule = ScenarioRule()
    overrides: dict[str, ScenarioRule] = {}  # by raw scenario

    def rule(self, scenario: str) -> ScenarioRule:
        """The rule of one raw scenario."""
        return self.overrides.get(scenario, self.default)

    @property
    def by_key(self) -> dict[str, ScenarioRule]:
        """Dotted key -> rule."""
        named = {f"scenarios.overrides.{name}": rule for name, rule in self.overrides.items()}
        return {"scenarios.default": self.default, **named}


class Interactions(Section):
    event_weights: dict[str, float] = {}  # event -> weight, 1 when not named; negative ones undo (returns)
    unknown_items: Literal["keep", "reject"] = "keep"  # an item_id that source.items does not have


class Linear(Section):
    """EASE (Steck 2019), an interaction fading with its age."""

    l2: Annotated[float, Field(gt=0)] = 100.0
    half_life_days: Annotated[float, Field(gt=0)] = 56.0
    max_items: Annotated[int, Field(ge=1)] = 30_000  # memory grows with its square


class CoOccurrence(Section):
    """Item-to-item similarity from what the same users had (Deshpande & Karypis 2004): sparse, for any catalogue."""

    pair_half_life_days: Annotated[float, Field(gt=0)] = float("inf")  # two events this far apart count half
    half_life_days: Annotated[float, Field(gt=0)] = 56.0
    shrinkage: Annotated[float, Field(ge=0)] = 5.0
    neighbours: Annotated[int, Field(ge=1)] = 200  # kept of each item
    history: Annotated[int, Field(ge=2)] = 100  # the newest events of a user that make pairs


class MatrixFactorization(Section):
    """Truncated SVD of who had what."""

    num_factors: Annotated[int, Field(ge=1)] = 64
    item_power: Annotated[float, Field(ge=0)] = 0.5
    half_life_days: Annotated[float, Field(gt=0)] = 56.0


class Sequence(Section):
    """A transformer over the user's events of all scenarios in order of time."""

    # all scenarios together; so with an adapter each; the others first and then `target`; `target` on its own
    mode: Literal["joint", "adapter", "finetune", "single"] = "joint"
    target: str | None = None  # raw scenario; only its lists get candidates then
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
            raise ValueError("modes `finetune` and `single` need `target: <scenario>`; `joint` and `adapter` have none")
        return self


class ContentTowers(Section):
    """Two towers over content embeddings."""

    dim: Annotated[int, Field(ge=1)] = 128
    negatives: Annotated[int, Field(ge=1)] = 1024
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    max_epochs: Annotated[int, Field(ge=1)] = 5


class ContentMap(Section):
    """Content embeddings mapped onto latent factors of behaviour: for items that nobody had yet."""

    num_factors: Annotated[int, Field(ge=1)] = 64


class Popular(Section):
    half_life_days: Annotated[float, Field(gt=0)] = 14.0
    shrinkage: Annotated[float, Field(ge=0)] = 100.0  # events that the all-scenario list counts for


class Retriever(Section):
    """`name: {}` turns one on with its defaults, `name: null` off; `content` and `popular` always work."""

    linear: Linear | None = Linear()
    co_occurrence: CoOccurrence | None = None
    matrix_factorization: MatrixFactorization | None = None
    sequence: Sequence | None = None
    content_towers: ContentTowers | None = None
    content_map: ContentMap | None = None
    popular: Popular = Popular()

    @property
    def names(self) -> tuple[str, ...]:
        """Those that work, in the order of RETRIEVERS."""
        return tuple(name for name in RETRIEVERS if name == "content" or getattr(self, name) is not None)


class Candidates(Section):
    depth: Annotated[int, Field(ge=1)] = 60  # of each retriever, per user and scenario
    block_users: Annotated[int, Field(ge=1)] = 512  # memory: this x items x 4 bytes a worker
    source: CandidateSource | None = None  # instead of the retrievers' own, for tonight; past nights stay theirs


class Task(Section):
    """What a user did with a candidate within the window.

    In YAML, `kind: multilabel` with `labels: {name: sql}` is short for a binary task <task>_<name> for each label.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["binary", "regression"]
    sql: str  # an aggregate over the window's events of one (scenario, user, item); `weight` is the event's weight
    loss_weight: Annotated[float, Field(gt=0)] = 1.0
    given: str | None = None  # the task before it in a funnel: its probability is part of this one's


class TrainingExamples(Section):
    tasks: tuple[Task, ...] = (Task(name="interaction", kind="binary", sql="sum(weight) > 0"),)  # the first one ranks
    label_days: Annotated[int, Field(ge=1)] = 28
    num_windows: Annotated[int, Field(ge=2)] = 3  # closed windows; the newest tests, so two are the least
    half_life_days: Annotated[float, Field(gt=0)] | None = None  # an older window's rows count less; None: the same
    negative_user_rate: Annotated[float, Field(gt=0, le=1)] = 0.2  # of the users without any positive

    @field_validator("tasks", mode="before")
    @classmethod
    def _labels(cls, tasks: Any) -> Any:
        """`multilabel` tasks as one binary task a label."""
        return [one for task in tasks for one in _binary_tasks(task)] if isinstance(tasks, list | tuple) else tasks

    @model_validator(mode="after")
    def _tasks(self) -> "TrainingExamples":
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) != len(names) or self.tasks[0].kind != "binary":
            raise ValueError("tasks need distinct names, and the first one, which ranks, must be binary")
        named = {task.name: task for task in self.tasks}
        for task in self.tasks:
            steps = [task.name]
            while (before := named[steps[-1]].given) is not None:
                if before not in named or before in steps or {task.kind, named[before].kind} != {"binary"}:
                    raise ValueError(f"task {steps[-1]}: given {before}, expected another binary task and no circle")
                steps.append(before)
        return self


def _binary_tasks(task: Any) -> list[Any]:
    """A `multilabel` task of the YAML as binary ones; any other as it is."""
    if not isinstance(task, dict) or task.get("kind") != "multilabel":
        return [task]
    labels = task.get("labels")
    if not isinstance(labels, dict) or not labels or "sql" in task:
        raise ValueError("kind multilabel needs `labels: {name: sql}`, and no `sql`")
    rest = {key: value for key, value in task.items() if key != "labels"} | {"kind": "binary"}
    return [{**rest, "name": f"{task.get('name')}_{label}", "sql": sql} for label, sql in labels.items()]


class Training(Section):
    reader: Literal["petastorm", "arrow", "auto"] = "auto"
    num_processes: Annotated[int, Field(ge=1)] = 1
    use_gpu: bool = False


class Ranker(Section):
    """The torch ranker, and its transfers: `joint` is `ranker` itself, any other a mode `ranker_<transfer>` of its own,
    with a training for every scenario (or group of small ones) as its target."""

    transfer: tuple[
        Literal["joint", "alone", "finetune", "reweight", "adversarial", "mmd", "distill", "augment"], ...
    ] = ("joint",)
    model: Literal["single", "shared_bottom", "mmoe", "ple", "star", "pepnet", "attention"] = "shared_bottom"
    cross_layers: Annotated[int, Field(ge=0)] = 0  # of DCN-v2, beside the model
    fusion: Literal["attention", "gate", "concat"] = "attention"  # of several content encoders
    task_weighting: Literal["fixed", "uncertainty"] = "fixed"  # uncertainty: learnt, on top of the tasks' loss_weight
    int8: bool = False  # score in 8 bits; the manifest says what it cost on the stopping users
    embedding_dim: Annotated[int, Field(ge=1)] = 32
    min_item_rows: Annotated[int, Field(ge=1)] = 5  # of 100,000; items with fewer are known by their content alone
    item_buckets: Annotated[int, Field(ge=1)] | None = None  # that many ids, shared by hash: for a huge catalogue
    hidden: tuple[int, ...] = (128, 64)
    history_length: Annotated[int, Field(ge=1, le=50)] = 50
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    batch_size: Annotated[int, Field(ge=1)] | None = None  # None: some 300 steps an epoch, by 256 to 8192 rows
    max_epochs: Annotated[int, Field(ge=1)] = 4
    patience: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _transfer(self) -> "Ranker":
        if "joint" not in self.transfer or len(set(self.transfer)) != len(self.transfer):
            raise ValueError("transfer needs distinct modes, `joint` among them: it is what the others fall back to")
        aligned = sorted({"adversarial", "mmd"} & set(self.transfer))
        if aligned and self.model not in ("shared_bottom", "attention"):
            raise ValueError(
                f"transfer {aligned} needs model shared_bottom or attention: a hidden layer that all share"
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
    k: Annotated[int, Field(ge=1)] = 10


class ModelMetrics(Section):
    bootstrap: Annotated[int, Field(ge=10)] = 200


class Maintenance(Section):
    retention_hours: Annotated[float, Field(ge=0)] = 168.0
    keep_nights: Annotated[int, Field(ge=1)] = 35  # model folders and candidates of older nights are dropped


class Config(Section):
    warehouse: str  # folder or URL for tables and models
    catalog: str | None = None  # catalog.schema: tables there instead of folders; models stay in the warehouse
    tables: dict[str, str] = {}  # noun -> table name, where it differs
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
                    "would leave some out; apply them to those rows, or take one of the two away"
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

    def digest(self, *sections: str) -> str:
        """Hash of the named sections, for a stage's fingerprint."""
        dumped = self.model_dump(mode="json")
        return hashlib.sha256(json.dumps({s: dumped[s] for s in sections}, sort_keys=True).encode()).hexdigest()[:16]
