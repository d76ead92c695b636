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
CONTENT_HASH = "content_hash"
FIRST_SEEN = "first_seen"

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
