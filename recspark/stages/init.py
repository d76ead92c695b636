"""A configuration for data that nobody has described yet: every guess with a comment that says why and what else.

Reads the first rows of the files and, up to files.WHOLE_BYTES, their times; writes only the YAML.
"""

import json
import re
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import yaml

from recspark.errors import DataError
from recspark.session import get_session
from recspark.sources import files
from recspark.sources.files import FIRST_ROWS, Group
from recspark.sources.guess import (
    BUYS,
    Guess,
    Guesses,
    catalogue,
    common_start,
    datetimes,
    guesses,
    items_apart,
    tokens,
)

MAX_TASKS = 4
NEEDED = {"user_id": "who did it", "item_id": "with which item", "event_time": "when"}
RECENT = timedelta(days=28)  # data that ends later gets no run_date: the night is of today
TABLE = re.compile(r"^\w+([.]\w+){1,2}$")


def configuration(places: Sequence[str], today: date) -> str:
    """The YAML text for files, folders or tables (catalog.schema.name).

    Raises: DataError that names what is missing: a user, an item, or a time.
    """
    found = [group for place in places for group in ([of_table(place)] if is_table(place) else files.groups([place]))]
    named = [(group, guesses(group.rows, group.names)) for group in found]
    group, guessed = max(named, key=lambda one: (sum(key in one[1] for key in NEEDED), len(one[0].rows)))
    missing = [key for key in NEEDED if key not in guessed]
    if missing:
        what = " and ".join(f"{key} ({NEEDED[key]})" for key in missing)
        columns = ", ".join(map(str, group.rows.columns[:12]))
        raise DataError(
            f"{shown_place(group)}: found no column for {what} among {columns}; "
            "events need a user, an item and a time: name the columns in a YAML file by hand if they are there"
        )
    others = [one for one, _ in named if one is not group]
    return "\n".join(
        (
            *head(group, guessed, today),
            *events(group, guessed),
            *items(group, guessed, others),
            *rules_and_tasks(group, guessed),
        )
    )


def is_table(place: str) -> bool:
    """A name of a table of the catalogue, and not of a file."""
    return bool(TABLE.match(place)) and not Path(place).exists() and files.kind_of(place) is None


def of_table(name: str) -> Group:
    """The first rows of a table of Spark's catalogue."""
    from pyspark.errors import AnalysisException

    spark, owned = get_session()
    try:
        rows = spark.table(name).limit(FIRST_ROWS).toPandas()
    except AnalysisException:
        raise DataError(
            f"{name}: neither a file nor a table of the catalogue; give files, a folder, or catalog.schema.name"
        ) from None
    finally:
        if owned:
            spark.stop()
    return Group("table", (), rows, table=name)


def shown_place(group: Group) -> str:
    return group.table or pattern(group)[0]


def pattern(group: Group) -> list[str]:
    """The paths for the YAML: one pattern if the files of a folder are exactly those that it matches."""
    if len(group.paths) == 1:
        return list(group.paths)
    folder = files.folder_of(group.paths[0])
    ending = common_start([name[::-1] for name in group.names])[::-1]
    there = [path for path, _ in files.list_files(folder) if files.folder_of(path) == folder]
    if ending and sorted(path for path in there if path.endswith(ending)) == sorted(group.paths):
        return [f"{folder}/*{ending}"]
    return list(group.paths)


def head(group: Group, guessed: Guesses, today: date) -> list[str]:
    lines = [
        f"# Written by `recspark init` from {len(group.rows):,} rows of the data, with a guess in each marked line:",
        "#   recspark check --config THIS_FILE",
        "# and see docs/configuration.md for every key.",
        f"warehouse: warehouse/{name_of(group)}  # where tables and models go: a folder or an URL",
    ]
    last = last_day(group, guessed["event_time"])
    if last is None:
        lines.append("# run_date: 2024-01-31  # the day after the last event, if the data is not of today")
    elif last < today - RECENT:
        day = last + timedelta(days=1)
        lines.append(f"run_date: {day}  # guess: the day after the last event; remove it when data arrives daily")
    return [*lines, ""]


def name_of(group: Group) -> str:
    """A name for the data: of its table or folder."""
    name = group.table or Path(files.folder_of(group.paths[0]) or ".").resolve().name
    return re.sub(r"\W+", "_", name.lower()).strip("_") or "recs"


def last_day(group: Group, time: Guess) -> date | None:
    """The day of the last event; None if the data is too large to look through."""
    values = files.whole_column(group, str(time.column))
    if values is None:
        return None
    last = datetimes(values, time.sql).max()
    return None if pd.isna(last) else last.date()


def events(group: Group, guessed: Guesses) -> list[str]:
    lines = ["source:", "  interactions:", *source(group)]
    for key in ("scenario", "user_id", "item_id", "event_time", "event", "value"):
        guess = guessed.get(key, one_scenario(group) if key == "scenario" else None)
        lines += [entry(4, key, guess)] if guess else []
    if "price" in guessed:
        lines += ["    context:", entry(6, "price", guessed["price"])]
    used = {guess.column for guess in guessed.values()}
    unused = [str(name) for name in group.rows if name not in used]
    return lines + ([f"    # not used: {', '.join(unused[:12])}"] if unused else [])


def one_scenario(group: Group) -> Guess:
    return Guess(f"'{name_of(group)}'", "no column looks like a scenario: one for all events, named by the folder")


def source(group: Group) -> list[str]:
    lines = [f"    format: {group.format}"]
    lines.append(f"    table: {group.table}" if group.table else f"    paths: {json.dumps(pattern(group))}")
    return lines + ([f"    options: {json.dumps(group.options)}"] if group.options else [])


def entry(indent: int, key: str, guess: Guess) -> str:
    """`key: sql  # guess: why; or: others`."""
    why = " ".join(guess.why.split())
    or_else = f"; or: {', '.join(guess.others[:4])}" if guess.others else ""
    return f"{' ' * indent}{key}: {yaml_text(guess.sql)}  # guess: {why}{or_else}"


def yaml_text(value: str) -> str:
    """A text in YAML, in quotes only where it would be read as something else."""
    try:
        return value if yaml.safe_load(value) == value else json.dumps(value)
    except yaml.YAMLError:
        return json.dumps(value)


def items(group: Group, guessed: Guesses, others: Sequence[Group]) -> list[str]:
    """The catalogue: another group of files that says what the items are, else a text beside the events."""
    for other in others:
        found = catalogue(other.rows, group.rows[guessed["item_id"].column])
        if found is not None:
            return ["  items:", *source(other), entry(4, "item_id", found[0]), entry(4, "text", found[1])]
    if "text" not in guessed:
        return ["  # items: no text of items was found; see source.items in docs/configuration.md"]
    known = Guess(guessed["event_time"].sql, "the newest row of an item names it")
    return [
        "  items:",
        *source(group),
        entry(4, "item_id", guessed["item_id"]),
        entry(4, "text", guessed["text"]),
        entry(4, "event_time", known),
    ]


def rules_and_tasks(group: Group, guessed: Guesses) -> list[str]:
    """The rules of the scenarios and what is to be learnt, where the data says something of them."""
    place, item = guessed["scenario"].column if "scenario" in guessed else None, str(guessed["item_id"].column)
    own = place is not None and items_apart(group.rows, place, item)
    rules = "  default: {items: own}  # guess: hardly any item is in two scenarios; all: lists may hold others' items"
    return [*(["", "scenarios:", rules] if own else []), *tasks(group, guessed)]


def tasks(group: Group, guessed: Guesses) -> list[str]:
    """Purchases first where there are such events, likes where a label says so; else any event is one."""
    done = guessed.get("event")
    if done is None:
        return [""]
    if done.weightless is not None:
        return ["", "interactions:", f"  event_weights: {{{done.weightless}: 0}}  # guess: no interest, but seen", ""]
    values = sorted(map(str, group.rows[done.column].dropna().unique()))
    buys = [value for value in values if set(tokens(value)) & set(BUYS)]
    first = list(dict.fromkeys((*buys, *values)))[:MAX_TASKS]
    names = [re.sub(r"\W+", "_", value.lower()).strip("_") for value in first]
    if not buys or not all(re.match(r"^[a-z]", name) for name in names):
        return [""]
    lines = ["", "training_examples:", "  tasks:  # guess: the first one ranks the lists"]
    for name, value in zip(names, first, strict=True):
        sql = json.dumps("count_if(event = '" + value.replace("'", "\\'") + "') > 0")
        lines.append(f"    - {{name: {yaml_text(name)}, kind: binary, sql: {sql}}}")
    return [*lines, ""]
