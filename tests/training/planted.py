"""Training examples with a planted signal, as files: the column `taste` and the item decide, the rest is noise."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recspark import given_features, model_folder
from recspark.config.rankers import Ranker, Task
from recspark.given_features import Names, Values
from recspark.histories import finish, save_shard
from recspark.training.ranking.job import CHECKPOINT_STEPS, RankerJob, RankerModel, Window

FEATURES = ("taste", "noise", "gaps")


def task(
    name: str, kind: Literal["binary", "regression"] = "binary", loss_weight: float = 1.0, given: str | None = None
) -> Task:
    """The rows below have their labels, so the SQL that would make them does not matter."""
    return Task(name=name, kind=kind, sql="none", loss_weight=loss_weight, given=given)


TASKS = (task("click"), task("spend", "regression", 0.1))
SETTINGS = Ranker(
    embedding_dim=4, hidden=(16, 8), history_length=3, dropout=0.2, learning_rate=0.01, batch_size=256, max_epochs=3,
    patience=2, min_item_rows=1,
)  # fmt: skip
NUM_ITEMS, NUM_USERS, DAY = 20, 50, 15000


def columns(num_rows: int, seed: int, day: int = DAY) -> dict[str, np.ndarray]:
    """Odd items are clicked at taste > 0, even ones never; scenario 2 turns the taste round. Spend = 10 a click."""
    rng = np.random.default_rng(seed)
    item, scenario = rng.integers(0, NUM_ITEMS, num_rows), rng.integers(0, 3, num_rows)
    taste, gaps = rng.normal(size=num_rows), rng.normal(size=num_rows)
    gaps[rng.random(num_rows) < 0.3] = np.nan
    click = (item % 2 == 1) & (np.where(scenario == 2, -taste, taste) > 0)
    user = rng.integers(0, NUM_USERS, num_rows)
    return {
        "as_of_day": np.full(num_rows, day, np.int32), "scenario_idx": scenario.astype(np.int32),
        "user_idx": user.astype(np.int32), "item_idx": item.astype(np.int32), "taste": taste.astype(np.float32),
        "noise": rng.normal(size=num_rows).astype(np.float32), "gaps": gaps.astype(np.float32),
        "label_click": click.astype(np.float32), "label_spend": np.where(click, 10, np.nan).astype(np.float32),
        "weight": np.where(click, 1, 2).astype(np.float32), "fold": (user % 10).astype(np.int32),
    }  # fmt: skip


def opposed(num_rows: int, seed: int, day: int = DAY) -> dict[str, np.ndarray]:
    """Scenarios 0 and 1 click at taste > 0, 2 and 4 at taste < 0: one line for all learns nothing. 3 has no row.
    Everywhere, who has much noise views: what scenarios agree on. 5 % of the clicks are turned round."""
    rng = np.random.default_rng((seed, 1))  # not the stream that drew the items
    rows = columns(num_rows, seed, day)
    scenario = np.array([0, 1, 2, 4])[rng.integers(0, 4, num_rows)]
    click = (np.where(scenario < 2, 1, -1) * rows["taste"] > 0) ^ (rng.random(num_rows) < 0.05)
    view = rows["noise"] > 0
    del rows["label_spend"]
    labels = {"label_click": click.astype(np.float32), "label_view": view.astype(np.float32)}
    return rows | labels | {"scenario_idx": scenario.astype(np.int32), "weight": np.ones(num_rows, np.float32)}


def given(folder: Path, day: int = DAY) -> str:
    """Features that the configuration names: user u is of group u % 2; item i has the kinds i % 2 and 7, and the number
    i / 10. The hashes of groups and kinds are the numbers themselves, 1000 apart for groups."""
    users, items = np.arange(NUM_USERS), np.arange(NUM_ITEMS)
    names = {"users": Names(categories=("group",)), "items": Names(("tenth",), (), ("kinds",))}
    none = np.zeros((NUM_USERS, 0), np.float32)
    of_users = Values(none, (np.arange(NUM_USERS + 1),), (1000 + users % 2,))
    kinds = np.stack([items % 2, np.full(NUM_ITEMS, 7)], axis=1).ravel()
    of_items = Values((items[:, None] / 10).astype(np.float32), (2 * np.arange(NUM_ITEMS + 1),), (kinds,))
    target = f"{folder}/given-{day}"
    given_features.save_shard(target, "users", 0, users, of_users)
    given_features.save_shard(target, "items", 0, items, of_items)
    given_features.finish(target, names, {"users": [0], "items": [0]})
    return target


def alike(num_rows: int, seed: int, day: int = DAY) -> dict[str, np.ndarray]:
    """A user clicks the items of their kind: nothing but `given` shows it, since no item is liked by all, and a user
    has every item as often."""
    rows = columns(num_rows, seed, day)
    click = (rows["user_idx"] % 2 == rows["item_idx"] % 2).astype(np.float32)
    return rows | {"label_click": click, "weight": np.ones(num_rows, np.float32)}


def window(
    folder: Path,
    num_rows: int = 3000,
    day: int = DAY,
    seed: int = 0,
    rows: Callable[[int, int, int], dict[str, np.ndarray]] = columns,
) -> Window:
    """Files, histories (user u had items u % 20 and then (u + 1) % 20) and a bundle with content vectors."""
    files = []
    for number in range(3):
        file = folder / f"examples-{day}" / f"part-{number}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows(num_rows // 3, seed + number, day)), file, row_group_size=400)
        files.append(f"file://{file}")
    histories, bundle = f"{folder}/histories-{day}", f"{folder}/bundle-{day}"
    users = np.arange(NUM_USERS)
    items = np.stack([users % NUM_ITEMS, (users + 1) % NUM_ITEMS], axis=1).ravel()
    offsets, ones = np.arange(NUM_USERS + 1) * 2, np.ones(2 * NUM_USERS)
    save_shard(histories, 0, users, offsets, items, ones.astype(np.int32), ones)
    finish(histories, [0], {})
    content = np.random.default_rng(1).normal(size=(NUM_ITEMS, 6)).astype(np.float32)
    model_folder.save(bundle, {"scenarios": {"a": 1, "b": 2}}, {"content": content})
    return Window(day, tuple(files), histories, bundle)


def job(
    models: tuple[RankerModel, ...],
    tasks: tuple[Task, ...] = TASKS,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    **changes: object,
) -> RankerJob:
    """`changes`: of SETTINGS, not validated."""
    settings = SETTINGS.model_copy(update=changes)
    return RankerJob(
        models, FEATURES, tasks, settings, seed=3, reader="arrow", threads=1, checkpoint_steps=checkpoint_steps
    )
