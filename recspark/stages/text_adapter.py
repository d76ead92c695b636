"""text_adapter: a text encoder trained on pairs of items that users interacted with one soon after the other.

It is trained on the events before the oldest window that the ranker learns from, so no vector depends on a label, of
training or of test. It is trained again when that window moves, once a week, or when those events change.
"""

from datetime import date

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.config.content import TextAdapter
from recspark.config.schema import Config
from recspark.encoders.weights import locate
from recspark.errors import ConfigError
from recspark.stages.launch import launch
from recspark.summary import Summary
from recspark.tables import index
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.interactions import event_weight
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store
from recspark.windows import closed_windows

NOUN = "text_adapter"
SECONDS_A_DAY = 86_400


def as_of(config: Config, run_date: date) -> date:
    """The date before which events are used for training."""
    settings = config.training_examples
    return closed_windows(run_date, settings.label_days, settings.num_windows)[-1]


def folder(store: Store, config: Config, run_date: date) -> str:
    """The folder of a night's adapter. Its name holds a hash of all inputs, so later nights find it again."""
    assert config.text_adapter is not None
    day, base = as_of(config, run_date), locate(config.text_adapter.encoder, config.text_adapter.revision).version
    events = store.digest(INTERACTIONS, c.EVENT_DATE, day)
    return artifacts.folder(store, NOUN, f"{day}-{artifacts.fingerprint(NOUN, config, base, day, events)}")


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Train the night's adapter, unless there is one for the present inputs. Without pairs the base model is kept.

    Raises: ConfigError for a scenario without events, TrainingError if the training fails.
    """
    settings = config.text_adapter
    if settings is None:
        return Summary(NOUN, skipped=True, note="off")
    require_scenarios(store, settings)
    target = folder(store, config, run_date)
    if force:
        model_folder.remove(target)
    if model_folder.exists(target):
        artifacts.point(store, config, NOUN, run_date, target)
        return Summary(NOUN, skipped=True, note=locate(target).version)
    from recspark.training.content import text_adapter as training  # here: it imports torch, which takes seconds

    day = as_of(config, run_date)
    before = store.events(INTERACTIONS, None, day)
    events = before.where(event_weight(before, config.interactions.event_weights) > 0)
    rows = pairs(events, store.read(ITEMS), settings, config.seed)
    rows.write.mode("overwrite").parquet(f"{target}/{training.PAIRS_FOLDER}")
    job = training.AdapterJob(
        folder=target,
        data={c.AS_OF: str(day), "events": store.digest(INTERACTIONS, c.EVENT_DATE, day)},
        settings=settings,
        seed=config.seed,
        use_gpu=config.training.use_gpu,
    )
    answer = launch(store.spark, NOUN, training.train_adapter, job, num_processes=1, use_gpu=job.use_gpu)
    artifacts.point(store, config, NOUN, run_date, target)
    result = f"epoch {answer['epochs']}" if answer["epochs"] else "no better than the frozen model, which stays"
    note = f"{locate(target).version}, pairs before {day}: {result}"
    return Summary(NOUN, rows_out=answer["pairs"], note=note)


def pairs(events: DataFrame, items: DataFrame, settings: TextAdapter, seed: int) -> DataFrame:
    """Texts of two different items that a user interacted with one after the other, at most `window_days` apart.

    `events`: interactions with a weight above 0; items without a text are left out. Events of the same time are in
    random order. At most `max_pairs` pairs, sampled by hash, so the result does not depend on the partitioning.

    Returns: (user long, left string, right string).
    """
    # item_id is the key of items
    texts = items.where(F.is_valid_utf8(c.TEXT) & (F.trim(c.TEXT) != "")).select(c.ITEM_ID, c.TEXT)
    rows = events if settings.scenarios is None else events.where(F.col(c.SCENARIO).isin(*settings.scenarios))
    rows = rows.join(texts, on=c.ITEM_ID, how="left_semi").select(c.USER_ID, c.ITEM_ID, c.EVENT_TIME)
    user = F.xxhash64(F.lit(seed), c.USER_ID)
    random_order = F.xxhash64(F.lit(seed), c.USER_ID, c.ITEM_ID)
    in_time_order = Window.partitionBy(c.USER_ID).orderBy(c.EVENT_TIME, random_order, c.ITEM_ID)
    seconds = F.col(c.EVENT_TIME).cast("double")
    both = rows.select(
        user.alias("user"),
        F.lag(c.ITEM_ID).over(in_time_order).alias("left_id"),
        F.col(c.ITEM_ID).alias("right_id"),
        (seconds - F.lag(seconds).over(in_time_order)).alias("gap"),
    )
    near = both.where((F.col("left_id") != F.col("right_id")) & (F.col("gap") <= settings.window_days * SECONDS_A_DAY))
    key = ("user", "left_id", "right_id")
    sampled = near.select(*key).distinct().orderBy(F.xxhash64(F.lit(seed), *key), *key).limit(settings.max_pairs)
    left, right = (
        texts.select(F.col(c.ITEM_ID).alias(f"{side}_id"), F.col(c.TEXT).alias(side)) for side in ("left", "right")
    )
    with_texts = sampled.join(left, on="left_id", how="inner").join(right, on="right_id", how="inner")
    return with_texts.select("user", "left", "right")


def require_scenarios(store: Store, settings: TextAdapter) -> None:
    """Raises ConfigError if text_adapter.scenarios names a scenario without any event."""
    known = {row[0] for row in store.read(index.SCENARIO_INDEX).select(c.SCENARIO).collect()}
    unknown = sorted(set(settings.scenarios or ()) - known)
    if unknown:
        raise ConfigError(
            f"text_adapter.scenarios: found {', '.join(unknown)}, where no user has an event; "
            f"known scenarios: {', '.join(sorted(known)[:20])}"
        )
