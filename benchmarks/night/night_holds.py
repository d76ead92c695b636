"""Are nights with a fault held, and nights without one not? No night is run: nothing is trained.

The figures of every day are made by the code of the stage `night_statistics`, and each of the last nights with
events is judged from the days before it. Then faults are put into rows of such nights, each in a number of draws, the
figures are made again, and the night is judged again. Shifts are of half a standard deviation of a scenario's numbers
that night; shifts, swaps and missing scenarios are drawn where the scenario has BIG rows or more that night.
Lists are judged in the same way; they are those of popularity, since no model is trained.
"""

import hashlib
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.night.deliveries import BIG, FAULTS, Data, Fault, Figures, delivery, read
from recspark import columns as c
from recspark.stages import holds

NIGHTS, DRAWS = 30, 20
OPTIONS = ("dates",)
LIST_NIGHTS = 80  # nights with lists, of which the last NIGHTS are judged
USERS = 400  # lists of a scenario
K, POPULAR_DAYS = 10, 28


def run(data: str, seeds: int, quick: bool, dates: str | None = None) -> dict[str, Any]:
    """Clean nights and faults; `quick`: 2 draws of each fault and no lists. `seeds`: so many times the draws. `dates`:
    only nights before that date, to develop on others than those that are reported."""
    draws = 2 if quick else DRAWS * seeds
    found = read(data)
    if dates is not None:
        found.figures = {key: x for key, x in found.figures.items() if key[0] < date.fromisoformat(dates)}
    last = found.days[-NIGHTS:]
    stops = {}
    for day in last:
        reasons, note = holds.judge(delivery(found, day))
        print(f"{day}: {'; '.join(reasons) or 'passes'} ({note})", flush=True)
        if reasons:
            stops[str(day)] = reasons
    stopped = {name: faulty(found, last, fault, draws) for name, fault in FAULTS.items()}
    lists = {} if quick else of_lists(found, draws)
    return {
        "data": data,
        "clean_nights": len(last),
        "first_night": str(last[0]),
        "false_stops": len(stops),
        "false_reasons": stops,
        "stopped": {name: f"{sum(one)} of {len(one)}" for name, one in stopped.items()},
        **lists,
    }


def faulty(data: Data, days: list[date], fault: Fault, draws: int) -> list[bool]:
    """Was the night held, for each draw of a fault?"""
    found = []
    for draw in range(draws):
        night = fault(data, days, np.random.default_rng(draw))
        if night is None:
            continue
        reasons, _ = holds.judge(night)
        found.append(bool(reasons))
        print(f"{fault.__name__} {draw}, {night.run_date}: {(reasons or ['NOT HELD'])[0]}", flush=True)
    return found


# -- lists -------------------------------------------------------------------------------------------------------------


def of_lists(data: Data, draws: int) -> dict[str, Any]:
    """Clean nights and faults of lists of popularity."""
    nights = [day + timedelta(days=1) for day in data.days[-LIST_NIGHTS:]]
    lists = {night: popular(data, night) for night in nights}
    before = dict(zip(nights[1:], nights[:-1], strict=True))
    tables = {(str(night), night): lists[night] for night in nights}
    judged = nights[-NIGHTS:]
    for name, fault in LIST_FAULTS.items():
        for draw in range(draws):
            rng = np.random.default_rng(draw)
            night = judged[rng.integers(len(judged))]
            sizes = lists[night].groupby(c.SCENARIO).size()
            scenario = rng.choice(sorted(sizes[sizes >= BIG].index))
            tables[f"{name}/{draw}", night] = fault(lists[night], scenario, rng)
    found = figures_of_lists(data, tables, {night: lists[old] for night, old in before.items()})
    clean = {night: found[str(night)] for night in nights}
    past: Figures = {(night, name): x for night, of in clean.items() for name, x in of.items()}

    def judge(night: date, now: dict[str, dict[str, float]]) -> list[str]:
        old = {key: x for key, x in past.items() if key[0] < night}
        return holds.judge_lists(night, now, old, clean[before[night]])

    stops = {str(night): reasons for night in judged if (reasons := judge(night, clean[night]))}
    stopped = {}
    for name in LIST_FAULTS:
        labels = [key for key in tables if key[0].startswith(f"{name}/")]
        reasons = [judge(night, found[label]) for label, night in labels]
        for (label, night), one in zip(labels, reasons, strict=True):
            print(f"{label}, {night}: {(one or ['NOT HELD'])[0]}", flush=True)
        stopped[name] = f"{sum(map(bool, reasons))} of {len(reasons)}"
    return {"list_nights": len(judged), "false_stops_lists": len(stops), "false_reasons_lists": stops,
            "stopped_lists": stopped}  # fmt: skip


def popular(data: Data, night: date) -> pd.DataFrame:
    """Lists of the K most popular items of a scenario that the user has not seen; at most USERS users a scenario."""
    old = data.events[data.events[c.EVENT_DATE] < night]
    recent = old[old[c.EVENT_DATE] >= night - timedelta(days=POPULAR_DAYS)]
    seen = old.groupby(c.USER_ID)[c.ITEM_ID].agg(set)
    rows = []
    for scenario, here in old.groupby(c.SCENARIO):
        now = recent[recent[c.SCENARIO] == scenario]
        counts = (now if len(now) else here).groupby(c.ITEM_ID)[c.USER_ID].nunique()
        best = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        for user in sorted(here[c.USER_ID].unique(), key=lambda one: hashlib.md5(one.encode()).hexdigest())[:USERS]:
            new = [one for one in best if one[0] not in seen[user]][:K]
            rows += [(scenario, user, item, float(n) + 1 / (rank + 2), "popular") for rank, (item, n) in enumerate(new)]
    return pd.DataFrame(rows, columns=[c.SCENARIO, c.USER_ID, c.ITEM_ID, c.SCORE, c.SOURCE])


def figures_of_lists(
    data: Data, tables: dict[tuple[str, date], pd.DataFrame], before: dict[date, pd.DataFrame]
) -> dict[str, dict[str, dict[str, float]]]:
    """Label -> scenario -> figures, all in one pass: the label is put before the scenario."""
    from recspark.tables import night_statistics

    def labelled(label: str, rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(**{c.SCENARIO: f"{label}|" + rows[c.SCENARIO]})

    now = pd.concat([labelled(label, rows) for (label, _), rows in tables.items()])
    old = pd.concat([labelled(label, before[night]) for label, night in tables if night in before])
    frames = (data.spark.createDataFrame(rows) for rows in (now, old))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in night_statistics.of_lists(*frames, ("popular",)).collect():
        label, _, scenario = row[c.SCENARIO].partition("|")
        found.setdefault(label, {})[scenario] = dict(row.statistics)
    return found


def constant(lists: pd.DataFrame, scenario: str, rng: np.random.Generator) -> pd.DataFrame:
    """All scores of a scenario are equal."""
    return lists.assign(**{c.SCORE: lists[c.SCORE].where(lists[c.SCENARIO] != scenario, 1.0)})


def exchanged(lists: pd.DataFrame, scenario: str, rng: np.random.Generator) -> pd.DataFrame:
    """A scenario's users have lists of another scenario."""
    others = sorted(set(lists[c.SCENARIO]) - {scenario})
    other = lists[lists[c.SCENARIO] == others[rng.integers(len(others))]].head(K)[c.ITEM_ID].tolist()
    here = lists[c.SCENARIO] == scenario
    place = lists[here].groupby(c.USER_ID).cumcount()
    out = lists.copy()
    out.loc[here, c.ITEM_ID] = [other[at % len(other)] for at in place]
    return out


def at_random(lists: pd.DataFrame, scenario: str, rng: np.random.Generator) -> pd.DataFrame:
    """The items of a scenario's lists are drawn at random from all lists."""
    here, out = lists[c.SCENARIO] == scenario, lists.copy()
    out.loc[here, c.ITEM_ID] = rng.choice(lists[c.ITEM_ID].unique(), here.sum())
    return out


LIST_FAULTS = {"constant score": constant, "lists of another scenario": exchanged, "items at random": at_random}
