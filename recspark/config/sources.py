"""The sections of the configuration about the data that recspark reads."""

from typing import Literal

from pydantic import model_validator

from recspark.config.section import Section


class Source(Section):
    """Where raw rows come from, with the names of `spark.read`."""

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
    """The catalogue: Spark SQL expressions over its columns."""

    item_id: str
    text: str = "CAST(NULL AS STRING)"
    attributes: dict[str, str] = {}
    media: str = "CAST(NULL AS STRING)"
    event_time: str | None = None  # when the row became known; rows from run_date on are not read
    keep: Literal["first", "last"] = "last"  # the row of an item that counts, by event_time


class UserSource(Source):
    """Users who get a list although they may have no event."""

    scenario: str
    user_id: str


class CandidateSource(Source):
    """Candidates made elsewhere, for tonight: exactly these rows are ranked, up to k a list."""

    scenario: str = "scenario"
    user_id: str = "user_id"
    item_id: str = "item_id"


class Sources(Section):
    """Every source; users and items are optional."""

    interactions: InteractionSource
    items: ItemSource | None = None
    users: UserSource | None = None
