"""recommendations: the published table, what a reason says, and the checks that a night must pass before it is."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import ScenarioRule, Scenarios
from recspark.tables.candidates import BECAUSE, GIVEN, REPEAT
from recspark.warehouse.store import Table

TABLE = Table(
    noun="recommendations",
    ddl=f"{c.RUN_DATE} date, {c.SCENARIO} string, {c.USER_ID} string, {c.RANK} int, {c.ITEM_ID} string, "
    f"{c.SCORE} double, {c.SOURCE} string, {c.MODEL} string, {c.REASON} string, {c.RUN_ID} string",
    key=(c.RUN_DATE, c.SCENARIO, c.USER_ID, c.RANK),
    partition_by=(c.RUN_DATE,),
)

# Top lists before ids and reasons: what distributed/recommendations.py makes of the candidates.
TOP = (
    f"{c.SCENARIO} string, {c.USER_IDX} int, {c.RANK} int, {c.ITEM_IDX} int, {c.SCORE} double, {c.SOURCE} string, "
    f"{BECAUSE} int"
)

SIZE = "size"  # rows that a list is due, where that is not k
EXPLAINED = {  # source -> what its best history item has to do with the recommended one
    "linear": "bought with", "co_occurrence": "bought with", "matrix_factorization": "goes with",
    "sequence": "comes after", "content_towers": "similar to", "content_map": "similar to",
    "content": "similar to",
}  # fmt: skip
MAX_TEXT = 80  # characters of an item's text in a reason


def build(
    top: DataFrame, modes: DataFrame, users: DataFrame, items: DataFrame, run_date: date, run_id: str
) -> DataFrame:
    """Rows of TABLE. `top`: TOP. `modes` (scenario, model): what orders each scenario's lists. `users`: user_index and
    the default user. `items` (item_id, item_idx, text). A number without an id gives a null, which `check` counts.
    """
    names = items.select(F.col(c.ITEM_IDX).alias(BECAUSE), name_of_item().alias("because"))
    # every table on the right is unique by its key, so the joins keep one row a place on a list
    rows = (
        top.join(F.broadcast(modes), on=c.SCENARIO, how="left")
        .join(users, on=c.USER_IDX, how="left")
        .join(items.select(c.ITEM_IDX, c.ITEM_ID), on=c.ITEM_IDX, how="left")
        .join(names, on=BECAUSE, how="left")
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
        reason().alias(c.REASON),
        F.lit(run_id).alias(c.RUN_ID),
    ).select(TABLE.columns)


def reason() -> Column:
    """Why an item is on the list, for a person; from source, scenario and `because` (the text of a history item)."""
    popular = F.concat(F.lit("popular in "), F.col(c.SCENARIO))
    words = F.create_map(*(F.lit(word) for pair in EXPLAINED.items() for word in pair))[F.col(c.SOURCE)]
    plain = F.when(F.col(c.SOURCE) == REPEAT, "bought before").when(F.col(c.SOURCE) == GIVEN, "given candidate")
    unnamed = F.when(words.isNotNull(), "suits earlier choices")  # all of them were undone since
    return F.coalesce(plain, F.concat(words, F.lit(" "), F.col("because")), unnamed, popular)


def name_of_item() -> Column:
    """An item's text on one line, shortened; its id where it has none."""
    text = F.trim(F.regexp_replace(c.TEXT, r"\s+", " "))
    short = F.when(F.length(text) > MAX_TEXT, F.concat(F.rtrim(F.substring(text, 1, MAX_TEXT - 3)), F.lit("...")))
    return F.coalesce(short, F.when(text != "", text), F.col(c.ITEM_ID))


def eligible(events: DataFrame, rules: Scenarios, given: DataFrame | None, default_user: bool) -> DataFrame:
    """(scenario, user_id), distinct: every list that a night owes, from the events before it and the rules alone.

    `given` (scenario, user_id): the users table. `default_user`: one list a scenario for visitors nobody knows.
    """
    had = events.select(c.SCENARIO, c.USER_ID)
    owed = had if given is None else had.unionByName(given.select(c.SCENARIO, c.USER_ID))
    active = {row[0] for row in had.select(c.SCENARIO).distinct().collect()}
    everyone = sorted(name for name in active if rules.rule(name).users == "all")
    if everyone:
        all_users = had.select(c.USER_ID).distinct()
        owed = owed.unionByName(
            all_users.select(F.explode(F.array(*map(F.lit, everyone))).alias(c.SCENARIO), c.USER_ID)
        )
    if default_user:
        rows = [(row[0], c.DEFAULT_USER) for row in owed.select(c.SCENARIO).distinct().collect()]
        owed = owed.unionByName(events.sparkSession.createDataFrame(rows, f"{c.SCENARIO} string, {c.USER_ID} string"))
    return owed.distinct()


@dataclass(frozen=True)
class Checked:
    """What the one pass over a staged night counted: rows, lists, and the failures by name (none: publish it)."""

    num_rows: int
    num_lists: int
    failures: dict[str, int]

    @property
    def reason(self) -> str:
        return "; ".join(f"{count:,} {name}" for name, count in self.failures.items())


def check(
    rows: DataFrame, owed: DataFrame, seen: DataFrame, items: DataFrame, rules: Scenarios, k: int, run_date: date
) -> Checked:
    """Count everything that a night must not have, in one aggregation over its lists.

    `owed`: see `eligible`; with a column `size` where lists may be shorter than k. `seen` (user_id, item_id), distinct:
    any event before the night. `items` (item_id, and what the rules' `where` reads): those known before it.
    """
    marked = (
        rows.join(seen.withColumn("seen", F.lit(True)), on=[c.USER_ID, c.ITEM_ID], how="left")  # distinct pairs
        .join(_known(items, rules, run_date), on=c.ITEM_ID, how="left")  # item_id is unique
        .withColumn("seen", F.coalesce("seen", F.lit(False)))
    )
    broken = " OR ".join(f"{name} IS NULL" for name in TABLE.columns)
    hides = _of_rule(rules, lambda rule: F.lit(rule.seen == "exclude"))
    place = F.struct(c.RANK, c.SCORE, c.ITEM_ID, c.SOURCE)
    lists = marked.groupBy(c.SCENARIO, c.USER_ID).agg(
        F.count("*").alias("n"),
        F.sort_array(F.collect_list(place)).alias("places"),
        F.countDistinct(c.ITEM_ID).alias("items"),
        _count(F.expr(broken)).alias("nulls"),
        _count(F.col(c.SCORE).isin(*(F.lit(float(x)) for x in ("nan", "inf", "-inf")))).alias("infinite"),
        _count(F.col("known").isNull()).alias("unknown"),
        _count(F.col("seen") & ~F.col(c.SOURCE).isin(REPEAT, GIVEN) & hides).alias("seen"),
        _count(~F.col("seen") & (F.col(c.SOURCE) == REPEAT)).alias("unseen"),
        _count(F.col(c.RUN_DATE) != F.lit(run_date)).alias("other"),
        _count(F.col("known") & ~_may(rules)).alias("left_out"),
    )
    # one row a list on both sides
    size = F.col(SIZE) if SIZE in owed.columns else F.lit(k)
    due = owed.select(c.SCENARIO, c.USER_ID, size.alias(SIZE), F.lit(True).alias("owed"))
    both = lists.withColumn("has", F.lit(True)).join(due, on=[c.SCENARIO, c.USER_ID], how="full")
    ranks = F.transform("places", lambda p: p[c.RANK])
    has = F.col("has").isNotNull()
    counts = {
        "eligible users without a list": _count(~has),
        "lists for users who are not eligible": _count(F.col("owed").isNull()),
        f"lists without exactly {k} rows": _count(has & (F.col("n") != F.coalesce(SIZE, F.lit(k)))),
        f"lists without ranks 1 to {k}": _count(has & (ranks != F.sequence(F.lit(1), F.coalesce(SIZE, F.lit(k))))),
        "lists with an item twice": _count(has & (F.col("items") < F.col("n"))),
        "lists whose score rises with rank": _count(has & _any_pair(_rises)),
        "lists with equal scores out of item_id order": _count(has & _any_pair(_unordered)),
        "lists with a repeat before a new item": _count(has & _any_pair(_repeat_first)),
        "rows with a null": F.sum("nulls"),
        "scores that are not finite": F.sum("infinite"),
        "items that are not known": F.sum("unknown"),
        "items that the user had": F.sum("seen"),
        "repeats that the user never had": F.sum("unseen"),
        "rows of another run_date": F.sum("other"),
        "items that their scenario's `where` leaves out": F.sum("left_out"),
    }
    found = both.agg(
        F.sum("n").alias("rows"),
        F.count("has").alias("lists"),
        *(column.alias(str(at)) for at, column in enumerate(counts.values())),
    ).first()
    failures = {name: int(found[str(at)]) for at, name in enumerate(counts) if found[str(at)]}
    if not found.rows:
        failures = {"rows: nothing to publish": 0, **failures}
    return Checked(int(found.rows or 0), int(found.lists), failures)


def _count(condition: Column) -> Column:
    return F.count(F.when(condition, F.lit(1)))


def _of_rule(rules: Scenarios, column: Callable[[ScenarioRule], Column]) -> Column:
    """What `column` says of the rule of the row's scenario; never null."""
    named = [F.when(F.col(c.SCENARIO) == name, column(rule)) for name, rule in rules.overrides.items()]
    return F.coalesce(*named, column(rules.default))


def _wheres(rules: Scenarios) -> dict[str, str]:
    """Every `where` -> the column of `_known` that says whether it leaves an item in."""
    asked = dict.fromkeys(rule.where for rule in rules.by_key.values() if rule.where is not None)
    return {sql: f"may_{n}" for n, sql in enumerate(asked)}


def _may(rules: Scenarios) -> Column:
    """Does the `where` of the row's scenario leave its item in?"""
    left = {sql: F.coalesce(name, F.lit(False)) for sql, name in _wheres(rules).items()}
    return _of_rule(rules, lambda rule: F.lit(True) if rule.where is None else left[rule.where])


def _known(items: DataFrame, rules: Scenarios, run_date: date) -> DataFrame:
    """(item_id, known, may_<n> ...) of the items that there are."""
    dated = items.withColumn(c.RUN_DATE, F.lit(run_date))
    may = (F.expr(sql).alias(name) for sql, name in _wheres(rules).items())
    return dated.select(c.ITEM_ID, F.lit(True).alias("known"), *may)


def _any_pair(is_wrong) -> Column:  # type: ignore[no-untyped-def]
    """Is something wrong between two neighbours of the list? `is_wrong`(upper, lower) -> Column."""
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
