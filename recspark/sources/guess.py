"""What the columns of unknown events are: by their names and by what is in them. Each guess has its reason and others.

Pure pandas, over the first rows that files.py has read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from recspark import columns

# fmt: off
TIMES = ("time", "timestamp", "ts", "date", "datetime", "day", "when", "at", "unixreviewtime", "unix")
NOT_OF_THE_EVENT = (
    "join", "register", "registered", "birth", "birthday", "release", "released", "signup", "bin", "play", "stay",
    "duration",
)
USERS = (
    "user", "uid", "customer", "client", "visitor", "member", "reviewer", "account", "buyer", "viewer", "listener",
    "subscriber", "shopper", "person", "reader", "player", "guest", "profile", "cookie", "device", "session",
)
ITEMS = (
    "item", "iid", "product", "sku", "asin", "movie", "film", "article", "news", "video", "track", "song", "book",
    "stock", "game", "post", "ad", "offer", "listing", "isbn", "recipe", "content", "pid", "vid", "artist", "course",
    "goods",
)
SCENARIOS = (
    "scenario", "domain", "market", "marketplace", "country", "site", "page", "channel", "app", "shop", "store",
    "region", "locale", "platform", "tab", "surface", "placement", "vertical",
)
EVENTS = ("event", "action", "behavior", "behaviour", "activity", "interaction", "verb")
VALUES = (
    "rating", "rate", "stars", "score", "overall", "price", "amount", "revenue", "spend", "value", "total",
)
PRICES = ("price",)
NO_VALUES = ("propensity", "position")
TEXTS = ("title", "name", "description", "text", "headline", "summary", "words")
# fmt: on
CLICKS = ("click", "clicked", "is_click")
LABELS = ("label", "like", "liked", "is_like")
BUYS = ("buy", "purchase", "order", "transaction", "conversion", "sale", "bought", "checkout")
IDS = ("id", "ids", "no", "number", "code", "key", "nr")
NO_SCENARIOS = {"train", "valid", "test", "val", "dev", "validation", "part", "data"}  # parts of files' names
UNNAMED = re.compile(r"_c\d+")  # Spark's names where there is no header
MANY = 200  # different values: more are no scenarios
UNIX = {"seconds": 1, "millis": 1e3, "micros": 1e6}
FIRST_UNIX, LAST_UNIX = 631_152_000, 4_102_444_800  # 1990 and 2100
PATTERNS = {
    "dd/MM/yyyy HH:mm:ss": "%d/%m/%Y %H:%M:%S", "dd/MM/yyyy HH:mm": "%d/%m/%Y %H:%M", "dd/MM/yyyy": "%d/%m/%Y",
    "MM/dd/yyyy HH:mm:ss": "%m/%d/%Y %H:%M:%S", "MM/dd/yyyy HH:mm": "%m/%d/%Y %H:%M", "MM/dd/yyyy": "%m/%d/%Y",
    "dd.MM.yyyy HH:mm:ss": "%d.%m.%Y %H:%M:%S", "dd.MM.yyyy": "%d.%m.%Y", "yyyyMMdd": "%Y%m%d",
    "MM dd, yyyy": "%m %d, %Y",
}  # fmt: skip


@dataclass(frozen=True)
class Guess:
    """`sql`: of the column or expression; `why`: for a comment; `others`: columns that it might be instead; `column`:
    that the SQL reads, None for none; `weightless`: the event, of those that the SQL gives, that shows no interest."""

    sql: str
    why: str
    others: tuple[str, ...] = ()
    column: str | None = None
    weightless: str | None = None


Guesses = dict[str, Guess]


def guesses(rows: pd.DataFrame, file_names: Sequence[str] = ()) -> Guesses:
    """Key of source.interactions, or `text` and `price`, -> guess; a key that nothing is like is left out.

    `file_names`: of all files with these columns; a part in which they differ may be the scenario.
    """
    found: Guesses = {}

    def free() -> pd.DataFrame:
        """The columns that nothing was guessed of."""
        return rows.drop(columns=[guess.column for guess in found.values() if guess.column is not None])

    def keep(key: str, guess: Guess | None) -> None:
        if guess is not None:
            found[key] = guess

    users, items = ids(rows)
    keep("user_id", named(rows, users, "first"))
    keep("item_id", named(rows, items, "second"))
    times = {name: sql for name, sql in time_columns(free()).items() if not constant_of(rows, users[:1], name)}
    keep("event_time", first_of(rows, tuple(times), times))
    keep("event", event(free()))
    keep("scenario", scenario(free(), file_names))
    values = [name for name in by_words(free(), VALUES) if not set(tokens(name)) & set(NO_VALUES)]
    keep("value", first_of(rows, [name for name in values if is_number(rows[name])]))
    keep("text", first_of(rows, [name for name in by_words(free(), TEXTS) if is_text(rows[name])]))
    keep(
        "price", first_of(rows, [name for name in by_words(rows, PRICES) if is_number(rows[name])])
    )  # or `value` as well
    return found


def first_of(rows: pd.DataFrame, names: Sequence[str], sql: Mapping[str, str] | None = None) -> Guess | None:
    """The first of the columns; its own SQL, or that of `sql`."""
    if not names:
        return None
    first = names[0]
    return Guess(sql[first] if sql else quoted(first), example(rows[first]), tuple(names[1:]), first)


def ids(rows: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that may be the user's id, best first, and those of the item's."""
    usable = [name for name in rows if is_id(rows[name])]
    users, items = (tuple(by_words(rows[usable], words, ids_only=True)) for words in (USERS, ITEMS))
    if not users and not items and all(UNNAMED.fullmatch(str(name)) for name in rows):
        times = time_columns(rows)
        rest = [name for name in usable if name not in times and rows[name].nunique() > 20]
        users, items = tuple(rest[:1]), tuple(rest[1:2])  # no names at all: the usual order
    return users, tuple(name for name in items if name not in users[:1])


def named(rows: pd.DataFrame, columns: tuple[str, ...], place: str) -> Guess | None:
    """The first of the columns as an id; `place`: among the columns of ids, where they have no names."""
    if not columns:
        return None
    how = f", the {place} column of ids" if UNNAMED.fullmatch(columns[0]) else ""
    return Guess(quoted(columns[0]), f"{rows[columns[0]].nunique():,} different{how}", columns[1:], columns[0])


def time_columns(rows: pd.DataFrame) -> dict[str, str]:
    """Column -> SQL of a timestamp: those that are named like a time first."""
    by_name = [name for name in by_words(rows, TIMES) if not set(tokens(name)) & set(NOT_OF_THE_EVENT)]
    unnamed = [name for name in rows if UNNAMED.fullmatch(str(name)) or is_datetime(rows[name])]
    found = {name: time_sql(rows[name], name) for name in dict.fromkeys((*by_name, *unnamed))}
    return {name: sql for name, sql in found.items() if sql is not None}


def is_datetime(values: pd.Series) -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(values))


def time_sql(values: pd.Series, name: str) -> str | None:
    """SQL that reads a column as a timestamp; None if it is none."""
    known = values.dropna()
    if known.empty:
        return None
    column = quoted(name)
    if is_datetime(known):
        return column
    numbers = pd.to_numeric(known, errors="coerce")
    if numbers.notna().mean() > 0.95:
        numbers = numbers.dropna()
        for unit, factor in UNIX.items():
            if numbers.between(FIRST_UNIX * factor, LAST_UNIX * factor).mean() > 0.95:
                return f"timestamp_{unit}(CAST({column} AS BIGINT))"
    texts = known.astype(str).str.strip().head(300)
    if texts.str.match(r"^\d{4}-\d{2}-\d{2}").mean() > 0.95:
        return column
    for pattern, strptime in PATTERNS.items():
        if pd.to_datetime(texts, format=strptime, errors="coerce").notna().mean() > 0.95:
            return f"to_timestamp({column}, '{pattern}')"
    return None


def constant_of(rows: pd.DataFrame, user: tuple[str, ...], column: str) -> bool:
    """Has every user one value only? Then it is a fact of the user, such as the day of joining. `user`: the column, or
    nothing."""
    if not user or rows[column].nunique() < 2:
        return False
    by_user = rows[[*user, column]].dropna().astype(str).groupby(user[0])[column].agg(["size", "nunique"])
    several = by_user[by_user["size"] > 1]
    return len(several) >= 20 and bool((several["nunique"] == 1).all())


def event(rows: pd.DataFrame) -> Guess | None:
    """What was done: a column of few texts, or a flag of a click or a like."""
    for name in by_words(rows, EVENTS):
        if 2 <= rows[name].nunique() <= 50:
            values = ", ".join(sorted(map(str, rows[name].dropna().unique()))[:6])
            return Guess(quoted(name), f"values: {values}", column=name)
    for words, yes, no in ((CLICKS, "click", "impression"), (LABELS, "like", "dislike")):
        for name in by_words(rows, words):
            if set(pd.to_numeric(rows[name], errors="coerce").dropna().unique()) == {0, 1}:
                sql = f"CASE WHEN CAST({quoted(name)} AS INT) = 1 THEN '{yes}' ELSE '{no}' END"
                return Guess(sql, f"{name} is 0 or 1; {no} has no weight, see event_weights", (), name, no)
    return None


def scenario(rows: pd.DataFrame, file_names: Sequence[str]) -> Guess | None:
    """Where it happened: a column of few values, or the part of the files' names in which they differ."""
    fits = [name for name in by_words(rows, SCENARIOS) if 2 <= rows[name].nunique() <= MANY]
    if fits:
        values = ", ".join(map(str, rows[fits[0]].value_counts().index[:4]))
        return Guess(quoted(fits[0]), f"{rows[fits[0]].nunique()} different: {values}", tuple(fits[1:]), fits[0])
    parts = name_parts(file_names)
    if parts is None:
        return None
    before, after, differing = parts
    start, end = (re.sub(r"\W", lambda letter: f"[{letter[0]}]", part) for part in (before, after))
    sql = f"regexp_extract(_metadata.file_name, '^{start}(.*){end}$', 1)"
    return Guess(sql, f"from the files' names: {', '.join(differing[:6])}")


def items_apart(rows: pd.DataFrame, scenario_column: str, item: str) -> bool:
    """Has each scenario items of its own: is hardly any item in two?"""
    pairs = rows[[scenario_column, item]].dropna().drop_duplicates()
    return len(pairs) > 100 and pairs[item].duplicated().mean() < 0.02


def name_parts(names: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """(what names begin with, end with, the parts in between), if those are short words that may be scenarios."""
    if len(set(names)) < 2 or any(set(tokens(name)) & NO_SCENARIOS for name in names):
        return None
    before = common_start(names)
    rest = [name[len(before) :] for name in names]
    after = common_start([name[::-1] for name in rest])[::-1]
    values = sorted(name[: len(name) - len(after)] for name in rest)
    good = all(re.fullmatch(r"[A-Za-z][A-Za-z-]{1,14}", value) for value in values)
    return (before, after, values) if good else None


def common_start(texts: Sequence[str]) -> str:
    """The letters that all texts begin with."""
    first, last = min(texts), max(texts)
    return next((first[:n] for n, letter in enumerate(first) if last[n : n + 1] != letter), first)


def catalogue(rows: pd.DataFrame, item_values: pd.Series) -> tuple[Guess, Guess] | None:
    """(item_id, text) of rows that say what items are: an id of an item that the events have too, and a text."""
    texts = [name for name in by_words(rows, TEXTS) if is_text(rows[name])]
    known = set(item_values.dropna().astype(str))
    for name in [*by_words(rows, ITEMS), *(n for n in rows if UNNAMED.fullmatch(str(n)))]:
        own = set(rows[name].dropna().astype(str)) if is_id(rows[name]) else set()
        if not texts and UNNAMED.fullmatch(str(name)):
            texts = [n for n in rows if n != name and is_text(rows[n])]
        if own and len(own & known) >= 0.3 * len(known) and texts and texts[0] != name:
            item = Guess(quoted(name), f"{len(own):,} items", column=name)
            return item, Guess(quoted(texts[0]), example(rows[texts[0]]), tuple(texts[1:]), texts[0])
    return None


# -- columns ----------------------------------------------------------------------------------------------------------


def tokens(name: object) -> list[str]:
    """userId -> user, id; CustomerID -> customer, id; parent_asin -> parent, asin."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", " ", str(name)).lower().split()


def by_words(rows: pd.DataFrame, words: Sequence[str], ids_only: bool = False) -> list[str]:
    """The columns whose names have one of the words, best first: the word alone, with `id`, then others.

    `ids_only`: other words beside it are no id (user_active_degree), unless an `id` stands at the end.
    """
    found: list[tuple[tuple[int, int], str]] = []
    for name in rows:
        parts = tokens(name)
        parts = (
            [parts[0].removesuffix("id"), "id"] if len(parts) == 1 and parts[0].removesuffix("id") in words else parts
        )
        hit = next((n for n, word in enumerate(words) if word in parts), None)
        if hit is None or holds_lists(rows[name]):
            continue
        rest = [part for part in parts if part != words[hit] and part not in IDS]
        if ids_only and rest and parts[-1] not in IDS:
            continue
        found.append(((len(rest), hit), name))
    return [name for _, name in sorted(found, key=lambda one: one[0])]


def quoted(name: str) -> str:
    """A column's name in SQL, in backticks only where it needs them."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else columns.quoted(name)


def holds_lists(values: pd.Series) -> bool:
    known = values.dropna()
    return len(known) > 0 and not isinstance(known.iloc[0], str) and hasattr(known.iloc[0], "__len__")


def is_id(values: pd.Series) -> bool:
    """More than one value, none of them with decimals or of many words."""
    known = values.dropna()
    if known.empty or holds_lists(values) or is_datetime(values) or known.nunique() < 2:
        return False
    texts = known.astype(str).head(2000)
    decimals = texts.str.match(r"^-?\d+[.]\d*[1-9]\d*$").mean()
    return bool(decimals < 0.01 and texts.str.count(" ").mean() < 1.5)


def is_number(values: pd.Series) -> bool:
    known = values.dropna()
    return not known.empty and not is_datetime(values) and pd.to_numeric(known, errors="coerce").notna().mean() > 0.95


def is_text(values: pd.Series) -> bool:
    known = values.dropna()
    return not known.empty and isinstance(known.iloc[0], str) and not is_number(values) and known.nunique() > 1


def example(values: pd.Series) -> str:
    known = values.dropna()
    return f"such as {str(known.iloc[0])[:40]}" if len(known) else ""


def datetimes(values: pd.Series, sql: str) -> pd.Series:
    """The times that the SQL of `time_sql` would give, UTC; NaT where it gives none."""
    unit = re.match(r"timestamp_(seconds|millis|micros)", sql)
    if unit:
        short = {"seconds": "s", "millis": "ms", "micros": "us"}[unit[1]]
        return pd.to_datetime(pd.to_numeric(values, errors="coerce"), unit=short, utc=True, errors="coerce")
    pattern = re.search(r", '(.*)'\)$", sql)
    if pattern:
        return pd.to_datetime(values, format=PATTERNS[pattern[1]], utc=True, errors="coerce")
    return pd.to_datetime(values, utc=True, errors="coerce", format=None if is_datetime(values) else "ISO8601")
