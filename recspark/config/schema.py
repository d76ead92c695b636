"""The configuration as frozen, strict types (load.py reads them from YAML). A section has the name of the artefact it
is about; a key without a default is required."""

import hashlib
import json
import math
import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recspark.config.content import ItemEmbeddings, ItemFacts, TextAdapter
from recspark.config.rankers import Gbdt, Ranker, Training, TrainingExamples
from recspark.config.reasons import checked
from recspark.config.retrievers import Candidates, Retriever
from recspark.config.section import Place, Section
from recspark.config.sources import Sources


class AtMost(Section):
    """At most `items` items with the same value of `of` in one list; null values have no limit."""

    items: Annotated[int, Field(ge=1)]
    """Items with the same value in one list."""
    of: str
    """Spark SQL over the columns of `items` and run_date: a brand, an author, a price band."""


class Boost(Section):
    """Moves the items that match up or down among the candidates of a list, behind what `where` leaves."""

    where: str
    """The items: Spark SQL over the columns of `items` and run_date."""
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """An item at place p is ordered as if it were at place p / factor: with 2 the tenth comes after the fifth, below 1
    it goes down. Those of several boosts are multiplied."""
    reason: str = "promoted"
    """What is added to the reason of an item that a factor above 1 moves."""


class Pin(Section):
    """Gives the best unseen item that matches a place in every list, also where no retriever found it."""

    where: str
    """The items: Spark SQL over the columns of `items` and run_date."""
    rank: Annotated[int, Field(ge=1)]
    """The place, from 1; one pin a place."""
    reason: str = "promoted"
    """What is added to the reason of the item."""


class ScenarioRule(Section):
    """Who gets a list in a scenario, and what may be in it."""

    users: Literal["own", "all"] = "own"
    """Who gets a list: users with an event in this scenario, or in any."""
    items: Literal["own", "all"] = "all"
    """What may be in a list: items with an event in this scenario, or all."""
    seen: Literal["exclude", "allow"] = "exclude"
    """May a list hold what the user has interacted with, in any scenario?"""
    where: str | None = None
    """The items that may be listed: Spark SQL over the columns of `items` and run_date. For tonight's lists only, since
    the stock of a past night is not known."""
    at_most: AtMost | None = None
    """A limit for items of one kind, for tonight's lists only; items over it are used only if fewer than k others
    remain."""
    boost: tuple[Boost, ...] = ()
    """Items to move up or down, for tonight's lists only; before `pin` and `at_most`."""
    pin: tuple[Pin, ...] = ()
    """Items with a place of their own, for tonight's lists only. They count first in `at_most`; over the limit none is
    pinned."""

    @field_validator("pin")
    @classmethod
    def _places(cls, pins: tuple[Pin, ...]) -> tuple[Pin, ...]:
        ranks = [pin.rank for pin in pins]
        twice = next((rank for rank in ranks if ranks.count(rank) > 1), None)
        if twice is not None:
            raise ValueError(f"two pins have the rank {twice}; give each a place of its own")
        return pins

    @property
    def promotions(self) -> tuple[str, ...]:
        """What `boost` and `pin` add to reasons."""
        return (*(boost.reason for boost in self.boost), *(pin.reason for pin in self.pin))


class Scenarios(Section):
    """The rules of the scenarios, and how small ones are modelled."""

    min_users: Annotated[int, Field(ge=1)] = 100
    """Scenarios with fewer users are modelled as one group; each still has lists of its own."""
    default: ScenarioRule = ScenarioRule()
    """The rule of every scenario without one of its own."""
    overrides: dict[str, ScenarioRule] = {}
    """Raw scenario -> its rule."""

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

    event_weights: dict[str, float | str] = {}
    """Event -> its weight, 1 for others. A number, where a negative one undoes an event (a return); or Spark SQL over
    the columns of `interactions` (`value - 3`, `context.stars`), where a result that is below 0, null or not a number
    counts as 0: no interest, but seen."""
    unknown_items: Literal["keep", "reject"] = "keep"
    """Events whose item_id is not in source.items."""

    @field_validator("event_weights", mode="before")
    @classmethod
    def _numbers(cls, weights: Any) -> Any:
        """A number in quotes is that number, as "-1" undoes an event and the SQL `-1` does not."""
        return (
            {event: _weight(event, weight) for event, weight in weights.items()}
            if isinstance(weights, dict)
            else weights
        )


class Recommendations(Section):
    """The published lists."""

    k: Annotated[int, Field(ge=1)] = 10
    """Items in each list."""
    reasons: dict[str, str] = {}
    """Source -> the wording of its reasons instead of the usual one, such as `linear: because you watched {item}` and
    `popular: popular in {scenario}`; `without_item`: where {item} is one that was returned since."""

    @field_validator("reasons")
    @classmethod
    def _reasons(cls, reasons: dict[str, str]) -> dict[str, str]:
        checked(reasons)
        return reasons


class ModelMetrics(Section):
    """How metrics are measured."""

    num_windows: Annotated[int, Field(ge=1)] = 1
    """Closed windows on which modes are judged, by models of older ones. Left out of the YAML, the night chooses it."""
    bootstrap: Annotated[int, Field(ge=10)] = 200
    """Samples of users for the confidence intervals."""


class Maintenance(Section):
    """What is kept when old data is removed."""

    retention_hours: Annotated[float, Field(ge=0)] = 168.0
    """Hours for which replaced data files are kept, for time travel."""
    keep_nights: Annotated[int, Field(ge=1)] = 35
    """Nights whose model folders and candidates are kept."""
    keep_lists_days: Annotated[int, Field(ge=35)] = 400
    """Days for which recommendations and recommendation_facts are kept; the newest night always is."""
    keep_records_days: Annotated[int, Field(ge=35)] = 800
    """Days for which model_metrics, published_runs and rejected_events are kept; the newest night always is."""


class Lease(Section):
    """One run at a time on a warehouse."""

    hung_after_s: Annotated[float, Field(ge=60)] = 6 * 3600.0
    """Seconds without a new stage, a finished Spark task or a line of a training, after which a run counts as hung: its
    lease expires, and the next run takes the warehouse."""


class Config(Section):
    """The whole file."""

    warehouse: Place
    """Folder or URL for tables and models; `~` and `${VARIABLE}` are replaced."""
    catalog: str | None = None
    """catalog.schema: tables there instead of in folders; models stay in the warehouse."""
    tables: dict[str, str] = {}
    """Artefact -> table name, where it differs."""
    run_date: date | None = None
    """Only events before this day (UTC) are read; null: today. --run-date overrides it."""
    seed: int = 0
    """Of all random numbers: the same inputs, configuration and seed give the same tables."""
    source: Sources
    scenarios: Scenarios = Scenarios()
    interactions: Interactions = Interactions()
    item_facts: ItemFacts | None = None
    text_adapter: TextAdapter | None = None
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
    lease: Lease = Lease()
    on_end: str | None = None
    """A command of the shell that gets the summary, one line of JSON, on its standard input when a run has ended, well
    or not. It has a minute; its failure is a warning. A mistake in this file ends a run before the command is known."""
    spark: dict[str, str] = {}
    """Settings of the Spark session, as Spark names them."""

    @field_validator("warehouse")
    @classmethod
    def _url(cls, warehouse: str) -> str:
        """Spark and Python read a URL with one slash as two different places."""
        if re.match(r"^[a-z][a-z0-9+]+:/(?!/)", warehouse):
            raise ValueError(f"write an URL with two slashes: {warehouse.replace(':/', '://', 1)}")
        return warehouse

    @property
    def is_on_s3(self) -> bool:
        """Is the warehouse or a source a URL of S3?"""
        return re.search(r'"s3a?://', self.model_dump_json()) is not None

    @model_validator(mode="after")
    def _depth(self) -> "Config":
        depth, k = self.candidates.depth, self.recommendations.k
        if depth < k:
            raise ValueError(f"candidates.depth: found {depth}, expected at least recommendations.k = {k}; raise it")
        return self

    @model_validator(mode="after")
    def _given(self) -> "Config":
        for key, rule in self.scenarios.by_key.items() if self.candidates.source is not None else ():
            if rule.where is not None or rule.at_most is not None or rule.boost or rule.pin:
                raise ValueError(
                    f"candidates.source: exactly its rows are ranked, found {key} with `where`, `at_most`, `boost` or "
                    "`pin`, which would change them; apply the rule to the source's rows, or remove one of the two"
                )
        return self

    @model_validator(mode="after")
    def _pins(self) -> "Config":
        k = self.recommendations.k
        for key, rule in self.scenarios.by_key.items():
            for pin in rule.pin:
                if pin.rank > k:
                    raise ValueError(f"{key}.pin: found rank {pin.rank}, expected at most recommendations.k = {k}")
        return self

    def of_past_dates(self) -> "Config":
        """What past dates depend on: neither item rules nor given candidates, which so rebuild none of them."""
        tonight = {"where": None, "at_most": None, "boost": (), "pin": ()}
        default = self.scenarios.default.model_copy(update=tonight)
        others = {name: rule.model_copy(update=tonight) for name, rule in self.scenarios.overrides.items()}
        lasting = {name: rule for name, rule in others.items() if rule != default}
        scenarios = self.scenarios.model_copy(update={"default": default, "overrides": lasting})
        candidates = self.candidates.model_copy(update={"source": None})
        return self.model_copy(update={"scenarios": scenarios, "candidates": candidates})

    def digest(self, *keys: str) -> str:
        """Hash of the values under some dotted keys (`ranker`, `scenarios.min_users`), for a fingerprint.

        What is off (null, false, empty) counts as if it were not there: a new key that is off by default changes no
        fingerprint of an existing warehouse. Features are read by artefacts of their own, so they are no part of their
        source's value, only of `source.<name>.features`.
        """
        dumped = self.model_dump(mode="json")
        found = {key: _switched_on(_of_key(dumped, key)) for key in keys}
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]


def _weight(event: str, weight: Any) -> float | str:
    if isinstance(weight, str) and weight.strip() and not _is_number(weight):
        return weight
    if not isinstance(weight, list | dict) and _is_number(weight) and math.isfinite(float(weight)):
        return float(weight)
    raise ValueError(f"{event}: found {weight!r}, expected a number, or Spark SQL such as `value - 3`")


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _under(tree: Any, key: str) -> Any:
    """The value of a dotted key; None below a section that is null."""
    for part in key.split("."):
        tree = None if tree is None else tree[part]
    return tree


def _of_key(tree: Any, key: str) -> Any:
    """The value of a dotted key, without the `features` of a source's section."""
    found = _under(tree, key)
    if not isinstance(found, dict) or key not in ("source.items", "source.users"):
        return found
    return {name: value for name, value in found.items() if name != "features"}


def _switched_on(tree: Any) -> Any:
    """Without null, false and empty values at any depth of its sections."""
    if isinstance(tree, list):
        return [_switched_on(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    inner = {key: _switched_on(value) for key, value in tree.items()}
    return {key: value for key, value in inner.items() if not (value is None or value is False or value in ([], ""))}
