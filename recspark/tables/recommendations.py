"""recommendations: the published table, the reason of each row, and the checks a night must pass to be published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.reasons import PLACES, TEMPLATES, UNEXPLAINED, WITHOUT_ITEM
from recspark.config.schema import Scenarios
from recspark.tables.candidates import EXPLAINING_ITEM, GIVEN, REPEAT
from recspark.tables.scenario_rules import by_rule, excludes_seen
from recspark.warehouse.store import Table

TABLE = Table(
    noun="recommendations",
    ddl=f"{c.RUN_DATE} date, {c.SCENARIO} string, {c.USER_ID} string, {c.RANK} int, {c.ITEM_ID} string, "
    f"{c.SCORE} double, {c.SOURCE} string, {c.MODEL} string, {c.REASON} string, {c.RUN_ID} string",
    key=(c.RUN_DATE, c.SCENARIO, c.USER_ID, c.RANK),
    partition_by=(c.RUN_DATE,),
    row="One place of one list: exactly k rows for every eligible user of every scenario, and for __default__.",
    checks=(("rank_from_1", f"{c.RANK} >= 1"), ("finite_score", f"abs({c.SCORE}) < double('infinity')")),
)

PROMOTED = "promoted"  # what a boost or a pin adds to the reason; null: nothing
# Top lists before ids and reasons: what stages/recommendations.py makes of the candidates.
TOP = (
    f"{c.SCENARIO} string, {c.USER_IDX} int, {c.RANK} int, {c.ITEM_IDX} int, {c.SCORE} double, {c.SOURCE} string, "
    f"{EXPLAINING_ITEM} int, {c.MODEL} string, {PROMOTED} string"
)

SIZE = "size"  # the expected number of rows of a list, where that is not k
MAX_TEXT = 80  # characters of an item's name in a reason


def build(
    top: DataFrame, users: DataFrame, items: DataFrame, run_date: date, run_id: str, reasons: Mapping[str, str]
) -> DataFrame:
    """Rows of TABLE. `top`: rows of TOP. `users`: user_index and the default user. `items` (item_id, item_idx, text,
    name). `reasons`: see `reason`. A number without an id gives a null, which `check` counts.
    """
    names = items.select(F.col(c.ITEM_IDX).alias(EXPLAINING_ITEM), name_of_item().alias("explaining_item"))
    # every table on the right is unique by its key, so the joins keep one row a place on a list
    rows = (
        top.join(users, on=c.USER_IDX, how="left")
        .join(items.select(c.ITEM_IDX, c.ITEM_ID), on=c.ITEM_IDX, how="left")
        .join(names, on=EXPLAINING_ITEM, how="left")
    )
    return rows.select(
        F.lit(run_date).alias(c.RUN_DATE),
        c.SCENARIO,
        c.USER_ID,
        c.RANK,
        c.ITEM_ID,
        c.SCORE,
        c.SOURCE,
        c.MODEL,
        F.concat(reason(reasons), F.coalesce(F.concat(F.lit(", "), PROMOTED), F.lit(""))).alias(c.REASON),
        F.lit(run_id).alias(c.RUN_ID),
    ).select(TABLE.columns)


def reason(reasons: Mapping[str, str]) -> Column:
    """Why an item is on the list, in words; from source, model, scenario and `explaining_item` (its name). Where
    popularity ordered the list, that is the reason, whatever else found the item. `reasons`: source -> its template,
    where that differs from TEMPLATES."""
    words = {source: _filled(template) for source, template in {**TEMPLATES, **reasons}.items()}
    explained = [source for source in TEMPLATES if source not in UNEXPLAINED]
    plain = [F.when(F.col(c.SOURCE) == source, words[source]) for source in (REPEAT, GIVEN)]
    by_popularity = F.when(F.col(c.MODEL) == "popular", words["popular"])
    by_item = [F.when(F.col(c.SOURCE) == source, words[source]) for source in explained]
    without = F.when(F.col(c.SOURCE).isin(explained), words[WITHOUT_ITEM])  # the explaining items were returned
    return F.coalesce(*plain, by_popularity, *by_item, without, words["popular"])


def _filled(template: str) -> Column:
    """A template with its places filled in; null where the item that it names is not known."""
    columns = {"item": F.col("explaining_item"), "scenario": F.col(c.SCENARIO)}
    parts = PLACES.split(template)  # text, place, text, place, ..., text
    return F.concat(*(columns[part] if n % 2 else F.lit(part) for n, part in enumerate(parts)))


def name_of_item() -> Column:
    """An item's name, or its text where it has none, on one line, shortened; its id where it has neither."""
    text = F.trim(F.regexp_replace(F.coalesce(c.NAME, c.TEXT), r"\s+", " "))
    short = F.when(F.length(text) > MAX_TEXT, F.concat(F.rtrim(F.substring(text, 1, MAX_TEXT - 3)), F.lit("...")))
    return F.coalesce(short, F.when(text != "", text), F.col(c.ITEM_ID))


def eligible(events: DataFrame, rules: Scenarios, given: DataFrame | None, default_user: bool) -> DataFrame:
    """(scenario, user_id), distinct: every list that is expected of a night, from the events before it and the rules.

    `given` (scenario, user_id): the users table. `default_user`: one list a scenario for visitors nobody knows.
    """
    active = events.select(c.SCENARIO, c.USER_ID)
    expected = active if given is None else active.unionByName(given.select(c.SCENARIO, c.USER_ID))
    scenarios = {row[0] for row in active.select(c.SCENARIO).distinct().collect()}
    everyone = sorted(name for name in scenarios if rules.rule(name).users == "all")
    if everyone:
        all_users = active.select(c.USER_ID).distinct()
        expected = expected.unionByName(
            all_users.select(F.explode(F.array(*map(F.lit, everyone))).alias(c.SCENARIO), c.USER_ID)
        )
    if default_user:
        rows = [(row[0], c.DEFAULT_USER) for row in expected.select(c.SCENARIO).distinct().collect()]
        default = events.sparkSession.createDataFrame(rows, f"{c.SCENARIO} string, {c.USER_ID} string")
        expected = expected.unionByName(default)
    return expected.distinct()


@dataclass(frozen=True)
class Checked:
    """What `check` counted: rows, lists, and the failures by name (empty: the night can be published)."""

    num_rows: int
    num_lists: int
    failures: dict[str, int]

    @property
    def reason(self) -> str:
        """The failures and how often each occurred, on one line."""
        return "; ".join(f"{count:,} {name}" for name, count in self.failures.items())


def check(
    rows: DataFrame, expected: DataFrame, seen: DataFrame, items: DataFrame, rules: Scenarios, k: int, run_date: date
) -> Checked:
    """Count everything that a night must not have, in one aggregation over its lists.

    `expected`: as `eligible` returns it; with a column `size` where lists may be shorter than k. `seen` (user_id,
    item_id), distinct: any event before the night. `items` (item_id, and the columns that the rules' `where` reads):
    those known before the night.
    """
    marked = (
        rows.join(seen.withColumn("seen", F.lit(True)), on=[c.USER_ID, c.ITEM_ID], how="left")  # distinct pairs
        .join(_known(items, rules, run_date), on=c.ITEM_ID, how="left")  # item_id is unique
        .withColumn("seen", F.coalesce("seen", F.lit(False)))
    )
    broken = " OR ".join(f"{name} IS NULL" for name in TABLE.columns)
    place = F.struct(c.RANK, c.SCORE, c.ITEM_ID, c.SOURCE)
    lists = marked.groupBy(c.SCENARIO, c.USER_ID).agg(
        F.count("*").alias("n"),
        F.sort_array(F.collect_list(place)).alias("places"),
        F.countDistinct(c.ITEM_ID).alias("items"),
        _count(F.expr(broken)).alias("nulls"),
        _count(F.col(c.SCORE).isin(*(F.lit(float(x)) for x in ("nan", "inf", "-inf")))).alias("infinite"),
        _count(F.col("known").isNull()).alias("unknown"),
        _count(F.col("seen") & ~F.col(c.SOURCE).isin(REPEAT, GIVEN) & excludes_seen(rules)).alias("seen"),
        _count(~F.col("seen") & (F.col(c.SOURCE) == REPEAT)).alias("unseen"),
        _count(F.col(c.RUN_DATE) != F.lit(run_date)).alias("other"),
        _count(F.col("known") & ~_is_open(rules)).alias("left_out"),
    )
    # one row a list on both sides
    size = F.col(SIZE) if SIZE in expected.columns else F.lit(k)
    sized = expected.select(c.SCENARIO, c.USER_ID, size.alias(SIZE), F.lit(True).alias("expected"))
    both = lists.withColumn("has", F.lit(True)).join(sized, on=[c.SCENARIO, c.USER_ID], how="full")
    ranks = F.transform("places", lambda p: p[c.RANK])
    has = F.col("has").isNotNull()
    counts = {
        "eligible users without a list": _count(~has),
        "lists for users who are not eligible": _count(F.col("expected").isNull()),
        f"lists without exactly {k} rows": _count(has & (F.col("n") != F.coalesce(SIZE, F.lit(k)))),
        f"lists without ranks 1 to {k}": _count(has & (ranks != F.sequence(F.lit(1), F.coalesce(SIZE, F.lit(k))))),
        "lists with an item twice": _count(has & (F.col("items") < F.col("n"))),
        "lists whose score rises with rank": _count(has & _any_pair(_rises)),
        "lists with equal scores out of item_id order": _count(has & _any_pair(_unordered)),
        "lists with a repeat before a new item": _count(has & _any_pair(_repeat_first)),
        "rows with a null": F.sum("nulls"),
        "scores that are not finite": F.sum("infinite"),
        "items that are not known": F.sum("unknown"),
        "items that the user has interacted with": F.sum("seen"),
        "repeats that the user has not interacted with": F.sum("unseen"),
        "rows of another run_date": F.sum("other"),
        "items that their scenario's `where` leaves out": F.sum("left_out"),
    }
    (found,) = both.agg(
        F.sum("n").alias("rows"),
        F.count("has").alias("lists"),
        *(column.alias(str(at)) for at, column in enumerate(counts.values())),
    ).collect()
    failures = {name: int(found[str(at)]) for at, name in enumerate(counts) if found[str(at)]}
    if not found.rows:
        failures = {"rows: nothing to publish": 0, **failures}
    return Checked(int(found.rows or 0), int(found.lists), failures)


def _count(condition: Column) -> Column:
    return F.count(F.when(condition, F.lit(1)))


def _wheres(rules: Scenarios) -> dict[str, str]:
    """Every `where` of the rules -> the column of `_known` with its value."""
    conditions = dict.fromkeys(rule.where for rule in rules.by_key.values() if rule.where is not None)
    return {sql: f"where_{n}" for n, sql in enumerate(conditions)}


def _is_open(rules: Scenarios) -> Column:
    """May the row's item be listed, by the `where` of the row's scenario?"""
    holds = {sql: F.coalesce(name, F.lit(False)) for sql, name in _wheres(rules).items()}
    return by_rule(rules, lambda rule: F.lit(True) if rule.where is None else holds[rule.where])


def _known(items: DataFrame, rules: Scenarios, run_date: date) -> DataFrame:
    """(item_id, known, where_<n> ...), one row an item."""
    dated = items.withColumn(c.RUN_DATE, F.lit(run_date))
    wheres = (F.expr(sql).alias(name) for sql, name in _wheres(rules).items())
    return dated.select(c.ITEM_ID, F.lit(True).alias("known"), *wheres)


def _any_pair(is_wrong: Callable[[Column, Column], Column]) -> Column:
    """Does `is_wrong`(upper, lower) hold for two neighbours of the list?"""
    places = F.col("places")
    last = F.size(places) - 1
    upper, lower = F.slice(places, F.lit(1), last), F.slice(places, F.lit(2), last)
    return F.exists(F.zip_with(upper, lower, is_wrong), lambda wrong: wrong)


def _rises(upper: Column, lower: Column) -> Column:
    return lower[c.SCORE] > upper[c.SCORE]


def _unordered(upper: Column, lower: Column) -> Column:
    return (lower[c.SCORE] == upper[c.SCORE]) & (lower[c.ITEM_ID] < upper[c.ITEM_ID])


def _repeat_first(upper: Column, lower: Column) -> Column:
    return (upper[c.SOURCE] == REPEAT) & (lower[c.SOURCE] != REPEAT)
