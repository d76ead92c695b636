"""The sections of the configuration about the data that recspark reads."""

from typing import Annotated, Literal

from pydantic import StringConstraints, model_validator

from recspark.config.section import Place, Section


class Source(Section):
    """Where raw rows come from, with the names of `spark.read`."""

    format: Literal["parquet", "csv", "json", "delta", "table"]
    """Of the files; `table` reads a table of the catalogue."""
    paths: tuple[Place, ...] = ()
    """Files, folders, patterns or URLs, for every format but `table`; `~` and `${VARIABLE}` are replaced."""
    table: str | None = None
    """catalog.schema.table, for format `table`."""
    options: dict[str, str] = {}
    """Reader options, as Spark names them: header, sep, encoding."""
    where: str | None = None
    """Spark SQL; rows that do not match are not part of the raw snapshot."""

    @model_validator(mode="after")
    def _place(self) -> "Source":
        if (self.format == "table") != (self.table is not None) or (self.format != "table") != bool(self.paths):
            raise ValueError(
                "format `table` needs `table: catalog.schema.name`; every other format needs `paths: [...]`"
            )
        if any(not path.strip() for path in self.paths):
            raise ValueError("an empty path would be the working directory; give the file, the folder or the pattern")
        return self


class Feature(Section):
    """What the rankers are told of an item or a user."""

    kind: Literal["number", "category", "categories"]
    """A number; one text; or a list of texts, of which 20 count. A missing value is a value of its own."""
    sql: str
    """Spark SQL over the source's columns: `age`, or `split(genres, '[|]')` for `categories`."""


FeatureName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


class InteractionSource(Source):
    """The events: Spark SQL expressions over the raw columns."""

    scenario: str
    """Where it happened: a column, an expression, or a constant such as `'shop'`."""
    user_id: str
    """Who did it; rows with null are rejected, and kept with that reason."""
    item_id: str
    """With which item."""
    event_time: str
    """When: a date, a timestamp (UTC), or a text in ISO format; unix seconds as timestamp_seconds(ts)."""
    event: str = "'interaction'"
    """What was done: view, cart, purchase."""
    value: str = "CAST(NULL AS DOUBLE)"
    """A number of the event: a price, a rating, seconds."""
    context: dict[str, str] = {}
    """Name -> expression, kept as a map; of its names the models read `price`, the price of one piece."""


class ItemSource(Source):
    """The catalogue: Spark SQL expressions over its columns."""

    item_id: str
    """The item, as the events name it."""
    text: str = "CAST(NULL AS STRING)"
    """What is embedded by the text encoder and, without a name, shown in reasons."""
    attributes: dict[str, str] = {}
    """Name -> expression: brand, stock, genre; for rules and facts."""
    media: str = "CAST(NULL AS STRING)"
    """File or URI of an image, a sound or a video, or a binary column."""
    media_roots: tuple[Place, ...] = ()
    """Folders, or URLs of folders (s3://, https://), in which files named in rows may lie, beside the source's own
    folder. Others are not opened."""
    name: str = "CAST(NULL AS STRING)"
    """What the item is called in reasons, such as a title; null: its text."""
    event_time: str | None = None
    """When the row became known; rows from run_date on are not read."""
    keep: Literal["first", "last"] = "last"
    """The row of an item that counts, by event_time. Of `features` it is always the newest one before a date."""
    features: dict[FeatureName, Feature] = {}
    """Name -> what the rankers are told of the item."""


class UserSource(Source):
    """What is known of users, and who gets a list although they may have no event."""

    user_id: str
    """The user, as the events name them."""
    scenario: str | None = None
    """The scenario of the list that each row's user gets; null: the source has features and gives nobody a list."""
    event_time: str | None = None
    """When the row's features became known: at a date the newest row before it counts. Null: known at all dates."""
    features: dict[FeatureName, Feature] = {}
    """Name -> what the rankers are told of the user."""

    @model_validator(mode="after")
    def _used(self) -> "UserSource":
        if self.scenario is None and not self.features:
            raise ValueError(
                "found neither `scenario` nor `features`; give the scenario of the users' lists, or features"
            )
        return self


class CandidateSource(Source):
    """Candidates made elsewhere, for tonight: exactly these rows are ranked, up to k a list."""

    scenario: str = "scenario"
    """The scenario of the list."""
    user_id: str = "user_id"
    """The user, as the events name them."""
    item_id: str = "item_id"
    """The item, as the events name it."""


class Sources(Section):
    """Every source; users and items are optional."""

    interactions: InteractionSource
    items: ItemSource | None = None
    users: UserSource | None = None

    @property
    def users_with_lists(self) -> UserSource | None:
        """`users`, if its users get a list."""
        return self.users if self.users is not None and self.users.scenario is not None else None

    @property
    def has_features(self) -> bool:
        """Is there a feature of items or users?"""
        return any(source is not None and source.features for source in (self.items, self.users))
