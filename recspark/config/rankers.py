"""The sections `training_examples`, `training`, `ranker` and `gbdt`: what orders the candidates, and what it learns."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recspark.config.section import Section


class Task(Section):
    """A label: what a user did with a candidate within the window.

    In YAML, `kind: multilabel` with `labels: {name: sql}` is short for a binary task <task>_<name> for each label.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """Name of the task; its label is the column label_<name>."""
    kind: Literal["binary", "regression"]
    """binary: did it happen; regression: how much. Also `multilabel`, see above."""
    sql: str
    """Spark SQL, an aggregate over the window's events of one (scenario, user, item); `weight` is the event's
    weight."""
    loss_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the task in the loss."""
    given: str | None = None
    """The previous task of a funnel: its probability is a factor of this one's."""


class TrainingExamples(Section):
    """The labels, and the past windows that the rankers learn from."""

    tasks: tuple[Task, ...] = (Task(name="interaction", kind="binary", sql="sum(weight) > 0"),)
    """What is learnt; the first task must be binary and ranks the lists."""
    label_days: Annotated[int, Field(ge=1)] = 28
    """Days of a window. Left out of the YAML, the night chooses it from past events."""
    num_windows: Annotated[int, Field(ge=2)] = 3
    """Closed windows; the newest ones judge the modes, so at least two. Left out of the YAML, the night chooses it."""
    max_lists: Annotated[int, Field(ge=1)] = 5_000
    """Lists of a window, of users who did something, that are learnt from; poor scenarios give all of theirs."""
    half_life_days: Annotated[float, Field(gt=0)] | None = None
    """Days after which the examples of a window count half; null: all count the same. Experimental."""

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
    """How trainings run."""

    reader: Literal["petastorm", "arrow", "auto"] = "auto"
    """Reader of the examples; auto: petastorm where it can read the tables, else arrow."""
    num_processes: Annotated[int, Field(ge=1)] = 1
    """Processes of TorchDistributor; as many free task slots must exist at once."""
    use_gpu: bool = False
    """Train on GPUs, one for each process."""


class Ranker(Section):
    """The torch ranker and its transfers: `joint` is the mode `ranker`, any other is a mode `ranker_<transfer>`, with
    one training for each target (a scenario, or the group of small ones)."""

    transfer: tuple[Literal["joint", "alone", "finetune", "reweight", "mmd", "distill", "augment"], ...] = ("joint",)
    """joint: all scenarios' rows; alone: the target's own; finetune: the others first; reweight: source rows weighted
    by their likeness to the target's; mmd: all rows, with an aligned hidden layer; distill: the joint ranker as
    teacher; augment: own rows and copies. All but joint are experimental: see night_modes in docs/benchmarks.md."""
    model: Literal["single", "shared_bottom", "mmoe", "ple", "star", "pepnet", "attention"] = "shared_bottom"
    """The network's body (docs/models.md). All but shared_bottom are experimental: see night_modes in
    docs/benchmarks.md."""
    cross_layers: Annotated[int, Field(ge=0)] = 0
    """Layers of DCN-v2, parallel to the body. Experimental."""
    fusion: Literal["attention", "gate", "concat"] = "attention"
    """How several content encoders of an item meet. Experimental, where there are several."""
    task_weighting: Literal["fixed", "uncertainty"] = "fixed"
    """uncertainty: learnt weights, times the tasks' loss_weight (Kendall et al. 2018). Experimental."""
    int8: bool = False
    """Score in 8 bits; the manifest has the loss of quality on the validation users. Experimental."""
    embedding_dim: Annotated[int, Field(ge=1)] = 32
    """Dimensions of an item's id embedding."""
    min_item_rows: Annotated[int, Field(ge=1)] = 5
    """Items with fewer rows, of 100,000, share one id embedding."""
    item_buckets: Annotated[int, Field(ge=1)] | None = None
    """Number of id embeddings, shared by hash, for large catalogues; null: one an item. Experimental."""
    hidden: tuple[int, ...] = (128, 64)
    """Units of the hidden layers."""
    history_length: Annotated[int, Field(ge=1, le=50)] = 50
    """Newest events of a user that are read."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of activations set to zero in training."""
    max_rows: Annotated[int, Field(ge=1)] = 600_000
    """Examples of the newest windows that are read; gbdt has the older ones too."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of the optimiser AdamW."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """Of the optimiser AdamW."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Rows of a step; null: about 300 steps an epoch, of 256 to 8192 rows."""
    max_epochs: Annotated[int, Field(ge=1)] = 4
    """Passes over the data at most."""
    patience: Annotated[int, Field(ge=1)] = 1
    """Epochs without a gain on validation users before training stops."""

    @model_validator(mode="after")
    def _transfer(self) -> "Ranker":
        if "joint" not in self.transfer or len(set(self.transfer)) != len(self.transfer):
            raise ValueError("transfer needs distinct modes, `joint` among them: the others fall back to it")
        if "mmd" in self.transfer and self.model not in ("shared_bottom", "attention"):
            raise ValueError(
                "transfer mmd needs model shared_bottom or attention: a hidden layer that all scenarios share"
            )
        return self


class Gbdt(Section):
    """LightGBM on the same features: the mean of three models that stop on different users."""

    max_rows: Annotated[int, Field(ge=1)] = 1_000_000
    """Examples at most, sampled by list."""
    max_rounds: Annotated[int, Field(ge=1)] = 400
    """Trees at most; training stops early on validation users."""
    learning_rate: Annotated[float, Field(gt=0)] = 0.05
    """Weight of each tree."""
    num_leaves: Annotated[int, Field(ge=2)] = 31
    """Leaves of a tree at most."""
    objective: Literal["rank_xendcg", "lambdarank"] = "rank_xendcg"
    """LightGBM's loss; rank_xendcg ranked best at every date that was tried."""
