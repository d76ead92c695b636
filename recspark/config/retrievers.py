"""The sections `retriever` and `candidates`: what finds the items that the rankers order."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recspark.config.section import Section
from recspark.config.sources import CandidateSource

# The `source` of a candidate; the order breaks ties. The section `retriever` turns them on and off.
RETRIEVERS = (
    "linear", "co_occurrence", "matrix_factorization", "sequence", "content_towers", "content_map", "content",
    "popular",
)  # fmt: skip


class Linear(Section):
    """EASE (Steck 2019), with exponential decay of interactions; above 6,000 items, weights from each item's
    neighbours."""

    l2: Annotated[float, Field(gt=0)] = 100.0
    """Ridge penalty: higher trusts rare items less."""
    half_life_days: Annotated[float, Field(gt=0)] = 56.0
    """Days after which an event counts half."""


class CoOccurrence(Section):
    """Item-to-item similarity from common users (Deshpande & Karypis 2004), sparse. Experimental: `linear` beside it
    has not been beaten on nights."""

    pair_half_life_days: Annotated[float, Field(gt=0)] = float("inf")
    """A pair of events this many days apart counts half."""
    half_life_days: Annotated[float, Field(gt=0)] = 56.0
    """Days after which an event of the user's history counts half."""
    shrinkage: Annotated[float, Field(ge=0)] = 5.0
    """Added to the count of an item in the similarity: higher trusts rare items less."""
    neighbours: Annotated[int, Field(ge=1)] = 200
    """Similar items kept of each item."""
    history: Annotated[int, Field(ge=2)] = 100
    """Newest events of a user that make pairs."""


class MatrixFactorization(Section):
    """Truncated SVD of the user-item matrix. Experimental: not measured on nights."""

    num_factors: Annotated[int, Field(ge=1)] = 64
    """Dimensions of an item's vector."""
    item_power: Annotated[float, Field(ge=0)] = 0.5
    """An item's column is divided by its count to this power: higher favours rare items."""
    half_life_days: Annotated[float, Field(gt=0)] = 56.0
    """Days after which an event counts half."""


class Sequence(Section):
    """A transformer (SASRec) over the user's events of all scenarios, in order of time. Experimental: not measured on
    nights."""

    mode: Literal["joint", "adapter", "finetune", "single"] = "joint"
    """joint: all scenarios together; adapter: the same, with an adapter for each scenario; finetune: first all other
    scenarios, then `target`; single: `target` alone."""
    target: str | None = None
    """Raw scenario, with modes finetune and single; then only its lists get candidates."""
    dim: Annotated[int, Field(ge=2)] = 64
    """Dimensions of an item's vector."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Transformer blocks."""
    heads: Annotated[int, Field(ge=1)] = 2
    """Attention heads of each block."""
    length: Annotated[int, Field(ge=1, le=50)] = 50
    """Newest events of a user that are read."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of activations set to zero in training."""
    negatives: Annotated[int, Field(ge=1)] = 512
    """Sampled items against each true next one."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of the optimiser AdamW."""
    max_epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over the data at most; training stops early on validation users."""

    @model_validator(mode="after")
    def _target(self) -> "Sequence":
        if (self.mode in ("finetune", "single")) != (self.target is not None):
            raise ValueError("modes `finetune` and `single` need `target: <scenario>`; `joint` and `adapter` take none")
        return self


class ContentTowers(Section):
    """Two towers over content embeddings. Experimental: not measured on nights."""

    dim: Annotated[int, Field(ge=1)] = 128
    """Dimensions of the towers' outputs."""
    negatives: Annotated[int, Field(ge=1)] = 1024
    """Sampled items against each true one."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of the optimiser AdamW."""
    max_epochs: Annotated[int, Field(ge=1)] = 5
    """Passes over the data at most."""


class ContentMap(Section):
    """Content embeddings mapped to latent factors of behaviour, for items without any interaction. Measured in
    docs/benchmarks.md (cold items); experimental on nights."""

    num_factors: Annotated[int, Field(ge=1)] = 64
    """Dimensions of the factors that content is mapped to."""


class Popular(Section):
    """The number of recent events of an item, with exponential decay."""

    half_life_days: Annotated[float, Field(gt=0)] = 14.0
    """Days after which an event counts half. Left out of the YAML, the night chooses it from past windows."""
    shrinkage: Annotated[float, Field(ge=0)] = 100.0
    """Weight of the list of all scenarios in a scenario's own, in events."""


class Retriever(Section):
    """What finds candidates. `name: {}` turns a retriever on with its defaults, `name: null` turns it off; `content`
    and `popular` are always on."""

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

    depth: Annotated[int, Field(ge=1)] = 60
    """Items of each retriever, for each user and scenario."""
    block_users: Annotated[int, Field(ge=1)] = 512
    """Users scored together; memory of a worker: this x items x 4 bytes."""
    source: CandidateSource | None = None
    """Tonight's candidates, made elsewhere; those of past nights come from the retrievers."""
