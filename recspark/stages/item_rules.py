"""Business rules as arrays over item_idx: the items for which each `where` holds, of rules, boosts and pins, and every
item's value of `at_most.of`.

They apply to tonight only. Every expression is evaluated once, over the known items.
Memory: one row for each item comes to the driver. Shapes: E expressions, I items.
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
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

NOUN = "item_rules"
PLACE = "the table items"


@dataclass(frozen=True)
class ItemRules:
    """By expression: `allowed` bool (I,); `code` int32 (I,), the same number for equal values, -1 for null."""

    allowed: dict[str, Array]
    code: dict[str, Array]


@dataclass(frozen=True)
class Limit:
    """A list may hold at most `items` items of the same `code` (I,); -1 has no limit."""

    code: Array
    items: int


def refresh(store: Store, config: Config, run_date: date) -> str | None:
    """The folder of tonight's rules, written if it does not exist; None without rules.

    Raises: ConfigError and SchemaError for an expression that is wrong over the columns of items and run_date.
    """
    keys = keys_of(config)
    if not keys:
        return None
    items = store.digest(ITEMS, c.FIRST_SEEN, run_date)
    named = artifacts.fingerprint(NOUN, config, sorted(keys), run_date, items, index.numbering(store, index.ITEM_INDEX))
    path = artifacts.folder(store, NOUN, f"{run_date}-{named}")
    if not model_folder.exists(path):
        kinds = {kind: [sql for one, sql in keys if one == kind] for kind in ("where", "of")}
        model_folder.save(path, kinds, arrays_of(_values(store, run_date, keys), list(keys)))
    return path


def keys_of(config: Config) -> dict[tuple[str, str], str]:
    """Every expression of the rules, (`where` or `of`, SQL), with the first dotted key that has it."""
    keys: dict[tuple[str, str], str] = {}
    for key, rule in config.scenarios.by_key.items():
        if rule.where is not None:
            keys.setdefault(("where", rule.where), f"{key}.where")
        conditions = {f"boost.{n}": boost.where for n, boost in enumerate(rule.boost)}
        conditions |= {f"pin.{n}": pin.where for n, pin in enumerate(rule.pin)}
        for name, sql in conditions.items():
            keys.setdefault(("where", sql), f"{key}.{name}.where")
        if rule.at_most is not None:
            keys.setdefault(("of", rule.at_most.of), f"{key}.at_most.of")
    return keys


@lru_cache(maxsize=2)
def open_rules(path: str | None) -> ItemRules:
    """The rules of a folder, memory-mapped; None: no rules."""
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
    """The limit on the lists of a scenario tonight, None without `at_most`."""
    at_most = rules.rule(scenario).at_most
    return None if at_most is None else Limit(open_rules(path).code[at_most.of], at_most.items)


def arrays_of(values: pa.Table, kinds: list[tuple[str, str]]) -> dict[str, Array]:
    """The values of all expressions as arrays over item_idx.

    `kinds`: (`where` or `of`, SQL) of each expression. `values`: item_idx and a column `<n>` for the n-th of them; an
    item without a row is not allowed and has the code -1.

    Returns: `where` bool (E, I) and `of` int32 (E, I), in the order of `kinds`; without an expression, no array.
    """
    item_idx = values[c.ITEM_IDX].to_numpy()
    num_items = int(item_idx.max()) + 1
    arrays: dict[str, list[Array]] = {}
    for n, (kind, _) in enumerate(kinds):
        column = values[str(n)].combine_chunks()
        if kind == "where":
            array, row_values = np.zeros(num_items, dtype=bool), pc.fill_null(column, False)
        else:
            codes = column.dictionary_encode().indices
            array, row_values = np.full(num_items, -1, dtype=np.int32), pc.fill_null(codes, -1)
        array[item_idx] = row_values.to_numpy(zero_copy_only=False)
        arrays.setdefault(kind, []).append(array)
    return {kind: np.stack(rows) for kind, rows in arrays.items()}


def _values(store: Store, run_date: date, keys: dict[tuple[str, str], str]) -> pa.Table:
    """item_idx and a column `<n>` for each expression, in order of item_idx."""
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
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(
            f"{', '.join(keys.values())}: cannot be evaluated over {PLACE} ({reason[:200]}); expected expressions over "
            f"one item's {', '.join((*ITEMS.columns, c.RUN_DATE))}"
        ) from None
