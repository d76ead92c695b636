"""NDCG@10 of each scenario's published lists by a night of its own rows alone, and by the joint night of all scenarios.

    python -m benchmarks night_transfer --data DIR|NAME [--dates N|DATE,DATE] [--horizon DAYS] [--keep DIR] [--set K=V]

Both are whole nights by the command that a user runs, judged as in night_quality; popularity of 90 days in the scenario
stands beside them. A scenario whose rows are too few for a night of its own has lists of popularity instead, and is
marked. The joint nights are those of night_quality in the same --keep. The ranker's bodies and transfers: night_modes.
"""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.night import judge, night_quality, rivals
from recspark.config.schema import Config
from recspark.errors import ConfigError

OPTIONS = night_quality.OPTIONS
RIVAL = "popular_90"


def run(
    data: str,
    seeds: int,
    quick: bool,
    dates: str = "1",
    horizon: int = 28,
    keep: str | None = None,
    set: tuple[str, ...] = (),
) -> dict[str, Any]:
    """`quick`: the newest date only. Of `seeds` the first one alone is used."""
    options = (quick, dates, horizon, keep, set)
    with night_quality.prepared(data, *options) as (yaml, base, config, kept, events, chosen):
        found = [of_date(yaml, base, config, kept, run_date, events, horizon) for run_date in chosen]
    return report(pd.concat(found, ignore_index=True))


def of_date(
    yaml: str, sets: tuple[str, ...], config: Config, kept: Path, run_date: date, events: pd.DataFrame, horizon: int
) -> pd.DataFrame:
    """One row for each list: run_date, scenario, user_id, and its NDCG `joint`, `alone` and of the rival."""
    start = (run_date - date(1970, 1, 1)).days
    before = events[events["day"] < start]
    wanted = night_quality.truth(kept, config, before, run_date, horizon)
    users = wanted[judge.LIST].drop_duplicates().sort_values(judge.LIST, ignore_index=True)
    own = {name for name in before["scenario"].unique() if config.scenarios.rule(name).items == "own"}
    known = rivals.past(before, start, users, own)
    lists = {"joint": night_quality.night(yaml, sets, kept, run_date, 0)["published"]}
    lists[RIVAL] = next(found for name, found in rivals.top_lists(known, users, judge.K) if name == RIVAL)
    parts = []
    for scenario in sorted(users["scenario"].unique()):
        alone = alone_night(yaml, sets, config, kept / "alone", run_date, scenario)
        parts.append(lists[RIVAL][lists[RIVAL]["scenario"] == scenario] if alone is None else alone)
        print(f"{run_date} {scenario}: {'too few rows for a night' if alone is None else 'done'}", flush=True)
    lists["alone"] = pd.concat(parts, ignore_index=True)
    table = pd.DataFrame({name: judge.ndcg(found, wanted) for name, found in lists.items()})
    return table.reset_index().assign(run_date=str(run_date))


def alone_night(
    yaml: str, sets: tuple[str, ...], config: Config, kept: Path, run_date: date, scenario: str
) -> pd.DataFrame | None:
    """The published lists of a night that reads one scenario's rows; None if they are too few for a night."""
    source = config.source.interactions
    quoted = scenario.replace("\\", "\\\\").replace("'", "\\'")
    mine = f"({source.scenario}) = '{quoted}'"
    where = mine if source.where is None else f"({source.where}) AND {mine}"
    folder = kept / "".join(letter if letter.isalnum() else "-" for letter in scenario)
    folder.mkdir(parents=True, exist_ok=True)
    refused = folder / f"{run_date}.refused"
    if refused.exists():
        return None
    try:
        only = f"source.interactions.where={json.dumps(where)}"
        published: pd.DataFrame = night_quality.night(yaml, (*sets, only), folder, run_date, 0)["published"]
    except ConfigError as error:  # the command failed: see its message in the file
        refused.write_text(str(error), encoding="utf-8")
        return None
    return published


def report(rows: pd.DataFrame) -> dict[str, Any]:
    """Print and return: by scenario and for the poor ones together, joint over alone and over the rival."""
    size = rows.groupby(["run_date", "scenario"])["user_id"].transform("size")
    groups = {str(name): part for name, part in rows.groupby("scenario")}
    groups |= {"(poor)": rows[size < night_quality.POOR], "(all)": rows}
    table: dict[str, dict[str, Any]] = {}
    for name, part in groups.items():
        if part.empty:
            continue
        means = part[["joint", "alone", RIVAL]].mean().round(4).to_dict()
        by_user = part.set_index([*judge.LIST, "run_date"])
        gains = {
            f"over {other}": [round(value, 4) for value in judge.interval(by_user["joint"] - by_user[other])]
            for other in ("alone", RIVAL)
        }
        table[name] = {"lists": len(part), **means, **gains}
    print(pd.DataFrame(table).T.to_string())
    return {"scenarios": table}
