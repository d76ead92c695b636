"""Business rules as arrays over item_idx: what each `where` leaves, and of which value of `at_most.of` an item is.

They hold for tonight alone. Every expression is evaluated once, over the known items; one row an item passes through
the driver. Shapes: E expressions, I items.
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import expressions, model_folder
from recspark.arrays import Array
from recspark.config.schema import Config, Scenarios
from recspark.errors import ConfigError
from recspark.tables import index
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store

PLACE = "the table items"


@dataclass(frozen=True)
class ItemRules:
    """By expression: `allowed` bool (I,), and `code` int32 (I,), equal where its values are, -1 where they are null."""

    allowed: dict[str, Array]
    code: dict[str, Array]


@dataclass(frozen=True)
class Limit:
    """A list holds at most `items` of one `code` (I,); -1 is no code."""

    code: Array
    items: int


def refresh(store: Store, config: Config, run_date: date) -> str | None:
    """The folder of tonight's rules, written where it is not there yet; None without any rule.

    Raises ConfigError and SchemaError for an expression that is no condition over the columns of items and run_date.
    """
    keys: dict[tuple[str, str], str] = {}
    for key, rule in config.scenarios.by_key.items():
        if rule.where is not None:
            keys.setdefault(("where", rule.where), f"{key}.where")
        if rule.at_most is not None:
            keys.setdefault(("of", rule.at_most.of), f"{key}.at_most.of")
    if not keys:
        return None
    named = store.fingerprint(sorted(keys), run_date, store.digest(ITEMS, c.FIRST_SEEN, run_date))
    path = f"{store.models('rules')}/{run_date}-{named}"
    if not model_folder.exists(path):
        kinds = {kind: [sql for one, sql in keys if one == kind] for kind in ("where", "of")}
        model_folder.save(path, kinds, arrays_of(_values(store, run_date, keys), list(keys)))
    return path


@lru_cache(maxsize=2)
def open_rules(path: str | None) -> ItemRules:
    """The rules of a folder, memory-mapped; none of None."""
    if path is None:
        return ItemRules({}, {})
    manifest = model_folder.read_manifest(path)
    opened = {
        kind: dict(zip(manifest[kind], np.asarray(model_folder.open_array(path, kind)), strict=True))
        for kind in ("where", "of")
        if manifest[kind]
    }
    return ItemRules(opened.get("where", {}), opened.get("of", {}))


def limit_of(rules: Scenarios, path: str | None, scenario: str) -> Limit | None:
    """What limits the lists of a scenario tonight."""
    at_most = rules.rule(scenario).at_most
    return None if at_most is None else Limit(open_rules(path).code[at_most.of], at_most.items)


def arrays_of(values: pa.Table, kinds: list[tuple[str, str]]) -> dict[str, Array]:
    """`where` bool (E, I) and `of` int32 (E, I), where there is an expression of the kind, in the order of `kinds`;
    `values`: item_idx and a column `<n>` for the n-th. Items that are not in it are not allowed and have no code."""
    item_idx = values[c.ITEM_IDX].to_numpy()
    num_items = int(item_idx.max()) + 1
    found: dict[str, list[Array]] = {}
    for n, (kind, _) in enumerate(kinds):
        column = values[str(n)].combine_chunks()
        if kind == "where":
            array, of_rows = np.zeros(num_items, dtype=bool), pc.fill_null(column, False)
        else:
            codes = column.dictionary_encode().indices
            array, of_rows = np.full(num_items, -1, dtype=np.int32), pc.fill_null(codes, -1)
        array[item_idx] = of_rows.to_numpy(zero_copy_only=False)
        found.setdefault(kind, []).append(array)
    return {kind: np.stack(arrays) for kind, arrays in found.items()}


def _values(store: Store, run_date: date, keys: dict[tuple[str, str], str]) -> pa.Table:
    """item_idx and a column `<n>` of every expression, in order of item_idx."""
    items = store.read(ITEMS).where(F.col(c.FIRST_SEEN) < F.lit(run_date)).withColumn(c.RUN_DATE, F.lit(run_date))
    columns = [
        expressions.column(items, sql, "condition" if kind == "where" else "text", key, PLACE).alias(str(n))
        for n, ((kind, sql), key) in enumerate(keys.items())
    ]
    try:
        # item_id is the key of both
        found = items.select(c.ITEM_ID, *columns).join(store.read(index.ITEM_INDEX), on=c.ITEM_ID, how="inner")
        return found.drop(c.ITEM_ID).toArrow().sort_by(c.ITEM_IDX)
    except expressions.FAILURES as error:
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"{', '.join(keys.values())}: cannot be evaluated over {PLACE} ({said[:200]}); expected expressions over "
            f"one item's {', '.join((*ITEMS.columns, c.RUN_DATE))}"
        ) from None
