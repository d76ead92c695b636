"""What the columns of unknown events are: by their names and by what is in them. Each guess has its reason and others.

Pure pandas, over the first rows that files.py has read.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

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
MANY = 200  # different values: more are no scenarios
UNIX = {"SECONDS": 1, "MILLIS": 1e3, "MICROS": 1e6}
FIRST_UNIX, LAST_UNIX = 631_152_000, 4_102_444_800  # 1990 and 2100
PATTERNS = {
    "dd/MM/yyyy HH:mm:ss": "%d/%m/%Y %H:%M:%S", "dd/MM/yyyy HH:mm": "%d/%m/%Y %H:%M", "dd/MM/yyyy": "%d/%m/%Y",
    "MM/dd/yyyy HH:mm:ss": "%m/%d/%Y %H:%M:%S", "MM/dd/yyyy HH:mm": "%m/%d/%Y %H:%M", "MM/dd/yyyy": "%m/%d/%Y",
    "dd.MM.yyyy HH:mm:ss": "%d.%m.%Y %H:%M:%S", "dd.MM.yyyy": "%d.%m.%Y", "yyyyMMdd": "%Y%m%d",
    "MM dd, yyyy": "%m %d, %Y",
}  # fmt: skip


@dataclass(frozen=True)
class Guess:
    """`sql`: of the column or expression; `why`: for a comment; `others`: columns that it might be instead."""

    sql: str
    why: str
    others: tuple[str, ...] = ()


Guesses = dict[str, Guess]


def guesses(rows: pd.DataFrame, file_names: Sequence[str] = ()) -> Guesses:
    """Key of source.interactions, or `text` and `price`, -> guess; a key that nothing is like is left out.

    `file_names`: of all files with these columns; a part in which they differ may be the scenario.
    """
    found: Guesses = {}
    taken: set[str] = set()

    def keep(key: str, guess: Guess, column: str) -> None:
        found[key] = guess
        taken.add(column)

    users, items = ids(rows)
    for key, columns in (("user_id", users), ("item_id", items)):
        if columns:
            keep(key, named(rows, columns, key), columns[0])
    owner = users[0] if users else None
    times = [(name, sql) for name, sql in time_columns(rows, taken) if not constant_of(rows, owner, name)]
    if times:
        others = tuple(name for name, _ in times[1:])
        keep("event_time", Guess(times[0][1], example(rows[times[0][0]]), others), times[0][0])
    done = event(rows, taken)
    if done is not None:
        keep("event", done, done.sql.strip("`"))
    place = scenario(rows, taken, file_names)
    if place is not None:
        keep("scenario", place, place.sql.strip("`"))
    for key, words, right in (("value", VALUES, is_number), ("text", TEXTS, is_text)):
        names = [name for name in by_words(rows, words) if name not in taken and right(rows[name])]
        names = [name for name in names if not set(tokens(name)) & set(NO_VALUES)]
        if names:
            keep(key, Guess(quoted(names[0]), example(rows[names[0]]), tuple(names[1:])), names[0])
    prices = [name for name in by_words(rows, PRICES) if is_number(rows[name])]
    if prices:
        found["price"] = Guess(quoted(prices[0]), example(rows[prices[0]]), tuple(prices[1:]))
    return found


def ids(rows: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that may be the user's id, best first, and those of the item's."""
    usable = [name for name in rows if is_id(rows[name])]
    users, items = (tuple(by_words(rows[usable], words, ids_only=True)) for words in (USERS, ITEMS))
    if not users and not items and all(re.fullmatch(r"_c\d+", str(name)) for name in rows):
        times = dict(time_columns(rows, set()))
        rest = [name for name in usable if name not in times and rows[name].nunique() > 20]
        users, items = tuple(rest[:1]), tuple(rest[1:2])  # no names at all: the usual order
    return users, tuple(name for name in items if name not in users[:1])


def named(rows: pd.DataFrame, columns: tuple[str, ...], key: str) -> Guess:
    first, *others = columns
    how = f", the {'first' if key == 'user_id' else 'second'} column of ids" if re.fullmatch(r"_c\d+", first) else ""
    return Guess(quoted(first), f"{rows[first].nunique():,} different{how}", tuple(others))


def time_columns(rows: pd.DataFrame, taken: set[str]) -> Iterator[tuple[str, str]]:
    """(column, SQL of a timestamp): those that are named like a time first."""
    by_name = [name for name in by_words(rows, TIMES) if not set(tokens(name)) & set(NOT_OF_THE_EVENT)]
    unnamed = [name for name in rows if re.fullmatch(r"_c\d+", str(name)) or is_datetime(rows[name])]
    for name in dict.fromkeys((*by_name, *unnamed)):
        sql = None if quoted(name) in taken or name in taken else time_sql(rows[name], name)
        if sql is not None:
            yield name, sql


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
                return f"timestamp_{unit.lower()}(CAST({column} AS BIGINT))"
    texts = known.astype(str).str.strip().head(300)
    if texts.str.match(r"^\d{4}-\d{2}-\d{2}").mean() > 0.95:
        return column
    for pattern, strptime in PATTERNS.items():
        if pd.to_datetime(texts, format=strptime, errors="coerce").notna().mean() > 0.95:
            return f"to_timestamp({column}, '{pattern}')"
    return None


def constant_of(rows: pd.DataFrame, user: str | None, column: str) -> bool:
    """Has every user one value only? Then it is a fact of the user, such as the day of joining."""
    if user is None or rows[column].nunique() < 2:
        return False
    by_user = rows[[user, column]].dropna().astype(str).groupby(user)[column].agg(["size", "nunique"])
    several = by_user[by_user["size"] > 1]
    return len(several) >= 20 and bool((several["nunique"] == 1).all())


def event(rows: pd.DataFrame, taken: set[str]) -> Guess | None:
    """What was done: a column of few texts, or a flag of a click."""
    for name in by_words(rows, EVENTS):
        if name not in taken and 2 <= rows[name].nunique() <= 50:
            values = ", ".join(sorted(map(str, rows[name].dropna().unique()))[:6])
            return Guess(quoted(name), f"values: {values}")
    for words, yes, no in ((CLICKS, "click", "impression"), (LABELS, "like", "dislike")):
        for name in by_words(rows, words):
            if name not in taken and set(pd.to_numeric(rows[name], errors="coerce").dropna().unique()) == {0, 1}:
                sql = f"CASE WHEN CAST({quoted(name)} AS INT) = 1 THEN '{yes}' ELSE '{no}' END"
                return Guess(sql, f"{name} is 0 or 1; {no} has no weight, see event_weights")
    return None


def scenario(rows: pd.DataFrame, taken: set[str], file_names: Sequence[str]) -> Guess | None:
    """Where it happened: a column of few values, or the part of the files' names in which they differ."""
    fits = [name for name in by_words(rows, SCENARIOS) if name not in taken and 2 <= rows[name].nunique() <= MANY]
    if fits:
        values = ", ".join(map(str, rows[fits[0]].value_counts().index[:4]))
        return Guess(quoted(fits[0]), f"{rows[fits[0]].nunique()} different: {values}", tuple(fits[1:]))
    parts = name_parts(file_names)
    if parts is None:
        return None
    before, after, differing = parts
    start, end = (re.sub(r"\W", lambda letter: f"[{letter[0]}]", part) for part in (before, after))
    sql = f"regexp_extract(_metadata.file_name, '^{start}(.*){end}$', 1)"
    return Guess(sql, f"from the files' names: {', '.join(differing[:6])}")


def apart(rows: pd.DataFrame, scenario_column: str, item: str) -> bool:
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
    for name in [*by_words(rows, ITEMS), *(n for n in rows if re.fullmatch(r"_c\d+", str(n)))]:
        own = set(rows[name].dropna().astype(str)) if is_id(rows[name]) else set()
        if not texts and re.fullmatch(r"_c\d+", str(name)):
            texts = [n for n in rows if n != name and is_text(rows[n])]
        if own and len(own & known) >= 0.3 * len(known) and texts and texts[0] != name:
            return Guess(quoted(name), f"{len(own):,} items"), Guess(
                quoted(texts[0]), example(rows[texts[0]]), tuple(texts[1:])
            )
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
    """A column's name as Spark SQL takes it."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else "`" + name.replace("`", "``") + "`"


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
