"""NDCG@10 of nights with each body of the torch ranker and with its transfers, beside the night as it is by default.

    python -m benchmarks night_modes --data DIR|NAME [--dates N|DATE,DATE] [--horizon DAYS] [--keep DIR] [--set K=V]

Each is a whole night by the command that a user runs, on a copy of the default night's warehouse, so that only what
depends on the ranker is built again. Judged as in night_quality, whose nights in the same --keep are the default ones.
Printed for each mode of the torch ranker: its lists everywhere, `blend` with gbdt, what the gate published, and in how
many scenarios it chose the mode.
"""

import json
import shutil
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.night import judge, night_quality
from recspark.config.schema import Config

OPTIONS = night_quality.OPTIONS
BODIES = ("single", "mmoe", "ple", "star", "pepnet", "attention")
TRANSFERS = ("joint", "alone", "finetune", "reweight", "mmd", "distill", "augment")
DEFAULT = "shared_bottom"
VARIANTS = {
    **{name: (f"ranker.model={name}",) for name in BODIES},
    "transfers": (f"ranker.transfer={json.dumps(TRANSFERS)}",),
}
LISTS = ("published", "blend", "gbdt")  # of every night, beside the modes of the torch ranker


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
    return report(pd.concat(found), found[0].attrs["chosen"])


def of_date(
    yaml: str, sets: tuple[str, ...], config: Config, kept: Path, run_date: date, events: pd.DataFrame, horizon: int
) -> pd.DataFrame:
    """NDCG of every list (run_date, scenario, user_id), a column for each `<night>: <mode>`; attrs["chosen"]: the
    number of scenarios in which the gate of that night chose the mode."""
    start = (run_date - date(1970, 1, 1)).days
    wanted = night_quality.truth(kept, config, events[events["day"] < start], run_date, horizon)
    values, counts = {}, {}
    for name, more in {DEFAULT: (), **VARIANTS}.items():
        folder = kept if name == DEFAULT else copied(kept, run_date, name)
        nightly = night_quality.night(yaml, (*sets, *more), folder, run_date, 0)
        lists = {"published": nightly["published"], **nightly["modes"]}
        for mode in (one for one in lists if one in LISTS or one.startswith("ranker")):
            values[f"{name}: {mode}"] = judge.ndcg(lists[mode], wanted)
            counts[f"{name}: {mode}"] = sum(one == mode for one in nightly["chosen"].values())
        print(f"{run_date} {name}: {values[f'{name}: published'].mean():.4f}", flush=True)
    table = pd.DataFrame(values).assign(run_date=str(run_date)).set_index("run_date", append=True)
    table.attrs["chosen"] = counts
    return table


def copied(kept: Path, run_date: date, name: str) -> Path:
    """A folder for the nights of a variant, with a copy of the default night's warehouse to start from."""
    folder = kept / "modes" / name
    mine = folder / f"{run_date}-0"
    if not (mine / "done.json").exists():
        shutil.rmtree(mine, ignore_errors=True)
        shutil.copytree(kept / f"{run_date}-0" / "warehouse", mine / "warehouse")
    return folder


def report(values: pd.DataFrame, chosen: dict[str, int]) -> dict[str, Any]:
    """Print and return for each `<night>: <mode>`: its mean over all lists, and its gain over the same mode of the
    default night (over the default `ranker`, if that has no such mode), with the interval over users."""
    found: dict[str, dict[str, Any]] = {}
    for name in values:
        mode = name.split(": ")[1]
        same = f"{DEFAULT}: {mode}"
        other = same if same in values else f"{DEFAULT}: ranker"
        gain = [round(value, 4) for value in judge.interval(values[name] - values[other])]
        found[name] = {"ndcg@10": round(float(values[name].mean()), 4), "gain": gain, "chosen": chosen[name]}
    print(pd.DataFrame(found).T.sort_values("ndcg@10", ascending=False).to_string())
    return {"modes": found, "lists": len(values)}
