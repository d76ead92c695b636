"""text_adapter: a text encoder that has learnt what users of the source scenarios took soon after each other.

It learns from the events before the oldest window that the ranker learns from: no label of a window, of training or of
test, has shaped a vector. So it is trained again when that window moves, once a week, or when those events change.
"""

import logging
from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.content import ItemEmbeddings, TextAdapter
from recspark.config.schema import Config
from recspark.encoders.weights import locate
from recspark.errors import ConfigError, DataError
from recspark.stages.launch import launch
from recspark.summary import Summary
from recspark.tables import index
from recspark.tables.histories import event_weight
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store
from recspark.windows import closed_windows

log = logging.getLogger(__name__)

NOUN = "text_adapter"
HERE = ("encoder", "revision", "scenarios", "window_days", "max_pairs")  # settings that are none of the training's
SECONDS_A_DAY = 86_400


def as_of(config: Config, run_date: date) -> date:
    """The events before this date make the pairs."""
    settings = config.training_examples
    return closed_windows(run_date, settings.label_days, settings.num_windows)[-1]


def folder(store: Store, config: Config, run_date: date) -> str:
    """Where the adapter of a night lies: named by its inputs, so that the next nights find it again."""
    assert config.text_adapter is not None
    day, base = as_of(config, run_date), locate(config.text_adapter.encoder, config.text_adapter.revision).version
    events = store.digest(INTERACTIONS, c.EVENT_DATE, day)
    settings = config.digest(NOUN, "interactions", "seed")
    return f"{store.models(NOUN)}/{day}-{store.fingerprint(settings, base, day, events)}"


def resolved(store: Store, config: Config, run_date: date) -> Config:
    """The configuration with the folder of tonight's adapter where an encoder is called `text_adapter`.

    Raises ConfigError without the section, DataError when the stage has not run.
    """
    encoders = config.item_embeddings.all
    if all(one.encoder != NOUN for one in encoders):
        return config
    if config.text_adapter is None:
        raise ConfigError(
            f"item_embeddings: found the encoder {NOUN}, expected a section of that name; add {NOUN}: {{}}"
        )
    path = folder(store, config, run_date)
    if not model_folder.exists(path):
        raise DataError(f"model folder {path} does not exist; run jobs/{NOUN}.py or jobs/nightly.py first")
    first, *also = (one.model_copy(update={"encoder": path}) if one.encoder == NOUN else one for one in encoders)
    embeddings = ItemEmbeddings(**first.model_dump(), also=tuple(also))
    return config.model_copy(update={"item_embeddings": embeddings})


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Train the adapter of the night unless there is one for the present inputs; without pairs it changes nothing.

    Raises ConfigError for a source scenario without events, TrainingError when the training fails.
    """
    settings = config.text_adapter
    if settings is None:
        return Summary(NOUN, skipped=True, note="off")
    require_scenarios(store, settings)
    target = folder(store, config, run_date)
    if force:
        model_folder.remove(target)
    if model_folder.exists(target):
        return Summary(NOUN, skipped=True, note=locate(target).version)
    from recspark.training.content import text_adapter as training  # loads torch: only a night that trains waits for it

    day = as_of(config, run_date)
    events = store.events(INTERACTIONS, None, day).where(event_weight(config.interactions.event_weights) > 0)
    rows = pairs(events, store.read(ITEMS), settings, config.seed)
    rows.write.mode("overwrite").parquet(f"{target}/{training.PAIRS_FOLDER}")
    job = training.Job(
        folder=target,
        base=settings.encoder,
        revision=settings.revision,
        data={c.AS_OF: str(day), "events": store.digest(INTERACTIONS, c.EVENT_DATE, day)},
        settings=settings.model_dump(mode="json", exclude=set(HERE)),
        seed=config.seed,
        use_gpu=config.training.use_gpu,
    )
    answer = launch(store.spark, NOUN, training.run, job.to_json(), num_processes=1, use_gpu=config.training.use_gpu)
    learnt = f"epoch {answer['epochs']}" if answer["epochs"] else "no better than the frozen model, which stays"
    note = f"{locate(target).version}, pairs before {day}: {learnt}"
    return Summary(NOUN, rows_out=answer["pairs"], note=note)


def pairs(events: DataFrame, items: DataFrame, settings: TextAdapter, seed: int) -> DataFrame:
    """(user long, left string, right string): texts of consecutive different items of a user within `window_days`.

    `events`: interactions of weight above zero; those of items without a text do not count. Items taken at the same
    moment come in an order of chance. At most `max_pairs`, drawn by hash: the same whatever the partitioning.
    """
    # item_id is the key of items
    texts = items.where(F.is_valid_utf8(c.TEXT) & (F.trim(c.TEXT) != "")).select(c.ITEM_ID, c.TEXT)
    rows = events if settings.scenarios is None else events.where(F.col(c.SCENARIO).isin(*settings.scenarios))
    rows = rows.join(texts, on=c.ITEM_ID, how="left_semi").select(c.USER_ID, c.ITEM_ID, c.EVENT_TIME)
    user = F.xxhash64(F.lit(seed), c.USER_ID)
    chance = F.xxhash64(F.lit(seed), c.USER_ID, c.ITEM_ID)
    before = Window.partitionBy(c.USER_ID).orderBy(c.EVENT_TIME, chance, c.ITEM_ID)
    seconds = F.col(c.EVENT_TIME).cast("double")
    both = rows.select(
        user.alias("user"),
        F.lag(c.ITEM_ID).over(before).alias("left_id"),
        F.col(c.ITEM_ID).alias("right_id"),
        (seconds - F.lag(seconds).over(before)).alias("gap"),
    )
    near = both.where((F.col("left_id") != F.col("right_id")) & (F.col("gap") <= settings.window_days * SECONDS_A_DAY))
    key = ("user", "left_id", "right_id")
    drawn = near.select(*key).distinct().orderBy(F.xxhash64(F.lit(seed), *key), *key).limit(settings.max_pairs)
    left, right = (
        texts.select(F.col(c.ITEM_ID).alias(f"{side}_id"), F.col(c.TEXT).alias(side)) for side in ("left", "right")
    )
    named = drawn.join(left, on="left_id", how="inner").join(right, on="right_id", how="inner")
    return named.select("user", "left", "right")


def require_scenarios(store: Store, settings: TextAdapter) -> None:
    """Raises ConfigError when text_adapter.scenarios names one that nobody has used."""
    known = {row[0] for row in store.read(index.SCENARIO_INDEX).select(c.SCENARIO).collect()}
    unknown = sorted(set(settings.scenarios or ()) - known)
    if unknown:
        raise ConfigError(
            f"text_adapter.scenarios: found {', '.join(unknown)}, where nobody has an event; "
            f"known scenarios: {', '.join(sorted(known)[:20])}"
        )
