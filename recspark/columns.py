"""The column names of every table, once. `*_id` is an external id, `*_idx` our dense number for it."""

SCENARIO = "scenario"
SCENARIO_IDX = "scenario_idx"  # the modelling group as of a date: 0 = all small scenarios together
USER_ID = "user_id"
USER_IDX = "user_idx"
ITEM_ID = "item_id"
ITEM_IDX = "item_idx"

EVENT_TIME = "event_time"
EVENT_DATE = "event_date"
EVENT = "event"
VALUE = "value"
CONTEXT = "context"

REASON = "reason"
ROW_HASH = "row_hash"
RAW = "raw"

TEXT = "text"
ATTRIBUTES = "attributes"
MEDIA = "media"
NAME = "name"
CONTENT_HASH = "content_hash"
FIRST_SEEN = "first_seen"

KNOWN_FROM = "known_from"
NUMBERS = "numbers"
CATEGORIES = "categories"

RELATION = "relation"
ENTITY = "entity"

ENCODER = "encoder"
EMBEDDING = "embedding"
DIM = "dim"

AS_OF = "as_of"
LABEL = "label"  # one column a task: label_<task>
WEIGHT = "weight"
FOLD = "fold"  # seeded tenth of the users, 0..9

RUN_DATE = "run_date"
RUN_ID = "run_id"
RANK = "rank"  # from 1
SCORE = "score"
SOURCE = "source"
MODEL = "model"

DEFAULT_USER = "__default__"  # one list per scenario for visitors without a user_id or events
EVERYONE = "__all__"  # all scenarios together
RESERVED = {USER_ID: DEFAULT_USER, SCENARIO: EVERYONE}  # ids that no row of a source may have

# What a column means wherever it stands, unless a table says otherwise; the tables' comments and docs/tables.md.
COMMENTS = {
    SCENARIO: "Where recommendations are shown, as the source names it. Example: France",
    SCENARIO_IDX: "Number of the scenario's modelling group as of a date; 0: all small scenarios together. Example: 3",
    USER_ID: "User, as the source names them; __default__: visitors without events. Example: 17850",
    USER_IDX: "Number of the user in user_index; -1: __default__. Example: 412",
    ITEM_ID: "Item, as the source names it. Example: 85123A",
    ITEM_IDX: "Number of the item in item_index. Example: 97",
    RUN_DATE: "The night: only events before this day (UTC) were known. Example: 2011-12-10",
    RUN_ID: "Run that wrote the row, as in published_runs. Example: 2f0c7c1e",
    AS_OF: "Date whose state the row has: nothing of this day or later is in it. Example: 2011-11-14",
    EVENT_TIME: "Time of the event, UTC. Example: 2010-12-01 08:26:00",
    EVENT_DATE: "Day of the event, UTC. Example: 2010-12-01",
    EVENT: "What was done, as source.interactions.event says. Example: purchase",
    VALUE: "Number of the event, in the unit of source.interactions.value. Example: 15.3",
    CONTEXT: "Further facts of the event by name. Example: {price -> 2.55, quantity -> 6}",
    TEXT: "Text of the item, from the catalogue. Example: WHITE HANGING HEART T-LIGHT HOLDER",
    ATTRIBUTES: "Attributes of the item by name. Example: {brand -> acme}",
    MEDIA: "File or URI of the item's image, sound or video. Example: s3://shop/85123A.jpg",
    NAME: "Name of the item in reasons, from source.items.name; null: its text. Example: Pulp Fiction",
    CONTENT_HASH: "SHA-256 of what is embedded: an item is embedded again when it changes.",
    FIRST_SEEN: "Day on which the item was first known. Example: 2010-12-01",
    KNOWN_FROM: "Since when the values are known, UTC: they count at dates after it. Null: at all dates until the "
    "first row with a time. Example: 2010-12-01 08:26:00",
    NUMBERS: "Features of kind number by name; a missing one has no entry. Example: {age -> 34.0}",
    CATEGORIES: "Features of kind category and categories by name, up to 20 texts each. Example: {job -> [nurse]}",
    RELATION: "Name of the relation in item_facts.relations. Example: brand",
    ENTITY: "What the item is related to. Example: acme",
    RANK: "Place in the list, from 1. Example: 1",
    SCORE: "Score that ordered the list: never rises with rank, compares only inside one list. Example: 0.19",
    SOURCE: "Retriever that ranked the item highest; repeat: seen before; given: candidates.source. Example: linear",
    MODEL: "What ordered the list: a retriever, ranker, gbdt or blend. Example: blend",
    REASON: "Why, for people. Example: often with HAND WARMER UNION JACK",
    WEIGHT: "Weight of the example in training. Example: 1.0",
    FOLD: "Tenth of the users, by a hash of user_id: 0 to 9. Example: 7",
}


def quoted(name: str) -> str:
    """A column's name as Spark SQL takes it, whatever letters it has."""
    return "`" + name.replace("`", "``") + "`"
