"""NDCG@10 of whole nights on what users did afterwards, beside simple rivals on the same events, for any data set.

    python -m benchmarks night_quality --data DIR|NAME [--dates N|DATE,DATE] [--horizon DAYS] [--keep DIR] [--set K=V]

DIR: a folder with the source files; its YAML is one in DIR, or that of conf/ with the same name. Each night is the
command that a user runs, and reads nothing after its date. Judged are all lists of users with an event in the scenario
before the night and, within the horizon, something new to them that the first task counts; all items are ranked. A
night that is in the folder --keep is not run again. `older_list` is what the date before it published, without what
users touched since: what standing still would cost. A retriever alone, such as `sequence`, is a mode of the night that
has it: --set retriever.sequence={}.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from benchmarks.night import judge, rivals
from recspark.config.load import load
from recspark.config.retrievers import RETRIEVERS
from recspark.config.schema import Config
from recspark.errors import ConfigError
from recspark.session import get_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OPTIONS = ("dates", "horizon", "keep", "set")
ITEM = [*judge.LIST, "item_id"]
POOR = 100  # lists of a scenario at a date


def run(
    data: str,
    seeds: int,
    quick: bool,
    dates: str = "3",
    horizon: int = 28,
    keep: str | None = None,
    set: tuple[str, ...] = (),
) -> dict[str, Any]:
    """`quick`: the newest date only."""
    with prepared(data, quick, dates, horizon, keep, set) as (yaml, base, config, kept, all_events, chosen):
        rows, older = [], None
        for run_date in sorted(chosen):
            found, older = of_date(yaml, base, config, kept, run_date, all_events, seeds, horizon, older)
            rows += found
    return report(pd.DataFrame(rows), horizon)


class Prepared(NamedTuple):
    """What nights of a data set start from: YAML file, overrides, configuration, the folder of kept nights, all events,
    and the run dates, newest first."""

    yaml: str
    sets: tuple[str, ...]
    config: Config
    kept: Path
    events: pd.DataFrame
    dates: list[date]


@contextmanager
def prepared(
    data: str, quick: bool, dates: str, horizon: int, keep: str | None, sets: tuple[str, ...]
) -> Iterator[Prepared]:
    """The options of the command, read; without `keep`, nights are kept until the block ends."""
    folder, yaml = find(data)
    base = (*with_paths(yaml, folder), *sets)
    config = load(yaml, base)
    with tempfile.TemporaryDirectory() as temporary:
        kept = Path(keep or temporary).resolve()
        all_events = events(yaml, base, config, kept)
        end = pd.Timestamp("1970-01-01") + pd.Timedelta(days=float(all_events["day"].max()))
        chosen = run_dates(dates, end.date() + timedelta(days=1), horizon)[: 1 if quick else None]
        yield Prepared(yaml, base, config, kept, all_events, chosen)


def find(data: str) -> tuple[Path, str]:
    """(folder of the source files, YAML file) of a folder or of the name of one in data/.

    Raises: ConfigError if there is no such folder or no YAML for it.
    """
    folder = next((path for path in (Path(data), Path("data") / data) if path.is_dir()), None)
    if folder is None:
        raise ConfigError(f"night_quality: {data} is no folder, and data/{data} neither; give --data DIR")
    own = sorted(folder.glob("*.yaml"))
    name = folder.resolve().name.replace("-", "_")
    shipped = [path for path in sorted(Path("conf").glob("*.yaml")) if name.startswith(path.stem)]
    if not own and not shipped:
        raise ConfigError(f"night_quality: found no YAML in {folder} and no conf/{name}.yaml; write one of the two")
    return folder.resolve(), str([*own, *shipped][0])


def with_paths(yaml: str, folder: Path) -> Iterator[str]:
    """Overrides by which the sources' files are read from `folder`."""
    sources = load(yaml).source
    for section in ("interactions", "items", "users"):
        source = getattr(sources, section)
        if source is not None and source.paths:
            yield f"source.{section}.paths={json.dumps([str(folder / Path(path).name) for path in source.paths])}"


def run_dates(dates: str, end: date, horizon: int) -> list[date]:
    """The given dates, or N of them, newest first: horizon days apart, the newest one's horizon ends with the data.

    Raises: ConfigError for anything else.
    """
    try:
        if dates.isdigit():
            return [end - timedelta(days=horizon * (n + 1)) for n in range(int(dates))]
        return [date.fromisoformat(part.strip()) for part in dates.split(",")]
    except ValueError as error:
        raise ConfigError(
            f"--dates {dates}: {error}; expected a number, or dates such as 2020-01-31,2019-12-31"
        ) from None


def command(job: str, yaml: str, run_date: date, sets: tuple[str, ...]) -> dict[str, Any]:
    """Run one job as a user does; its summary.

    Raises: ConfigError with the end of its log if it fails."""
    line = [sys.executable, f"jobs/{job}.py", "--config", yaml, "--run-date", str(run_date)]
    done = subprocess.run(
        line + [part for one in sets for part in ("--set", one)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ConfigError(f"{' '.join(line)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def spark_of(config: Config) -> "SparkSession":
    return get_session({**config.spark, "spark.ui.enabled": "false"})[0]


def events(yaml: str, sets: tuple[str, ...], config: Config, kept: Path) -> pd.DataFrame:
    """All events of the data: scenario, user_id, item_id, day (since the epoch), weight."""
    from pyspark.sql import functions as F

    from recspark.tables.interactions import TABLE, event_weight
    from recspark.warehouse.store import Store

    warehouse = f"warehouse={kept / 'all'}"
    if not (kept / "all" / TABLE.noun).exists():
        command("interactions", yaml, datetime.now(timezone.utc).date(), (*sets, warehouse))
    rows = Store(spark_of(config), load(yaml, (*sets, warehouse)), "benchmark").read(TABLE)
    day = (F.unix_micros("event_time") / 86_400e6).alias("day")
    weight = event_weight(rows, config.interactions.event_weights).alias("weight")
    frame: pd.DataFrame = rows.select(*ITEM, day, weight).toPandas()
    return frame


def truth(kept: Path, config: Config, before: pd.DataFrame, run_date: date, horizon: int) -> pd.DataFrame:
    """(scenario, user_id, item_id) that the first task counts within the horizon, of users with an event in the
    scenario before, without items that the user touched before anywhere."""
    from pyspark.sql import functions as F

    from recspark.tables.interactions import TABLE, event_weight
    from recspark.warehouse.store import Store

    store = Store(spark_of(config), config.model_copy(update={"warehouse": str(kept / "all")}), "benchmark")
    window = store.events(TABLE, run_date, run_date + timedelta(days=horizon))
    weighted = window.withColumn("weight", event_weight(window, config.interactions.event_weights))
    label = F.expr(config.training_examples.tasks[0].sql).cast("float").alias("label")
    done = weighted.groupBy(*ITEM).agg(label).where("label > 0").select(*ITEM).toPandas()
    known = done.merge(before[judge.LIST].drop_duplicates())
    touched = known.merge(before[["user_id", "item_id"]].drop_duplicates(), how="left", indicator=True)
    new: pd.DataFrame = touched[touched["_merge"] == "left_only"][ITEM]
    return new


def of_date(
    yaml: str,
    sets: tuple[str, ...],
    config: Config,
    kept: Path,
    run_date: date,
    all_events: pd.DataFrame,
    seeds: int,
    horizon: int,
    older: pd.DataFrame | None,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """One row for each (recommender, list): run_date, seed, name, scenario, user_id, ndcg; and what the first seed
    published. `older`: what it published at the date before."""
    start = (run_date - date(1970, 1, 1)).days
    before = all_events[all_events["day"] < start]
    wanted = truth(kept, config, before, run_date, horizon)
    lists = wanted[judge.LIST].drop_duplicates().sort_values(judge.LIST, ignore_index=True)
    print(f"{run_date}: {len(before)} events before, {len(lists)} lists judged", flush=True)
    rows: list[dict[str, Any]] = []

    def add(name: str, seed: int, found: pd.DataFrame) -> None:
        values = judge.ndcg(found, wanted)
        rows.extend(
            {"run_date": str(run_date), "seed": seed, "name": name, "scenario": s, "user_id": u, "ndcg": value}
            for (s, u), value in values.items()
        )
        print(f"  {name:26s} {values.mean():.4f}", flush=True)

    published = []
    for seed in range(seeds):
        nightly = night(yaml, sets, kept, run_date, seed)
        add("published", seed, nightly["published"])
        published.append(nightly["published"])
        print(
            f"  night of {nightly['seconds']} s, recall {judge.recall(nightly['candidates'], wanted):.3f}", flush=True
        )
        modes = {name: judge.ndcg(found, wanted) for name, found in nightly["modes"].items()}
        table = judge.regret(modes, nightly["chosen"])
        print(table.round(4).to_string(index=False), flush=True)
        print("  " + ", ".join(f"{name} {value.mean():.4f}" for name, value in modes.items()), flush=True)
    own = {name for name in before["scenario"].unique() if config.scenarios.rule(name).items == "own"}
    known = rivals.past(before, start, lists, own)
    for name, found in rivals.top_lists(known, lists, judge.K):
        add(name, 0, found)
    if older is not None:
        add("older_list", 0, untouched(older, before))
    return rows, published[0]


def untouched(published: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """Lists without what their users touched before, ranked from 1 again."""
    pairs = before[["user_id", "item_id"]].drop_duplicates()
    marked = published.merge(pairs, how="left", indicator=True)
    left = marked[marked["_merge"] == "left_only"].sort_values([*judge.LIST, "rank"])
    return left.assign(rank=left.groupby(judge.LIST).cumcount() + 1)[[*ITEM, "rank"]]


def night(yaml: str, sets: tuple[str, ...], kept: Path, run_date: date, seed: int) -> dict[str, Any]:
    """A night's published lists, candidates, lists of each mode, the gate's choice, and seconds; kept as files."""
    folder = kept / f"{run_date}-{seed}"
    if not (folder / "done.json").exists():
        began = time.monotonic()
        mine = (*sets, f"warehouse={folder / 'warehouse'}", f"seed={seed}")
        summary = command("nightly", yaml, run_date, mine)
        seconds = round(time.monotonic() - began)
        chosen = save_lists(load(yaml, mine), run_date, folder)
        stages = {name: stage["seconds"] for name, stage in summary["stages"].items()}
        done = {"seconds": seconds, "chosen": chosen, "stages": stages}
        (folder / "done.json").write_text(json.dumps(done), encoding="utf-8")
    done = json.loads((folder / "done.json").read_text(encoding="utf-8"))
    scored = pd.read_parquet(folder / "candidates.parquet")
    modes = {}
    for name in (column.removeprefix("score_") for column in scored if column.startswith("score_")):
        fallback = scored["popular_score"] if name in RETRIEVERS else 0.0
        missing = scored[f"score_{name}"].isna()
        order = scored.assign(score=scored[f"score_{name}"].where(~missing, fallback), missing=missing)
        order = order.sort_values(["missing", "score", "item_id"], ascending=[True, False, True])
        rank = order.groupby(judge.LIST).cumcount() + 1
        modes[name] = order.assign(rank=rank)[rank <= judge.K]
    return {**done, "published": pd.read_parquet(folder / "published.parquet"), "candidates": scored, "modes": modes}


def save_lists(config: Config, run_date: date, folder: Path) -> dict[str, str]:
    """Write published.parquet and candidates.parquet (with the score of every mode); the gate's choice by scenario."""
    from pyspark.sql import functions as F

    from recspark.stages import lists, time_scales
    from recspark.stages.ranker import scorer
    from recspark.stages.ranker.modes import PUBLISHED
    from recspark.tables import candidates, index, model_metrics
    from recspark.tables.recommendations import TABLE
    from recspark.warehouse.store import Store

    store = Store(spark_of(config), config, "benchmark")
    config = time_scales.settle(store, config, run_date)
    mine = F.col("user_id") != "__default__"
    published = store.read(TABLE).where(mine).select(*ITEM, "rank")
    published.toPandas().to_parquet(folder / "published.parquet")
    scoring = scorer.scorer(store, config, run_date, run_date, PUBLISHED)
    modes = ("popular", *config.retriever.names, *scoring.modes)
    rows = store.read(candidates.TABLE).where(F.col("as_of") == F.lit(run_date))
    scored = lists.scored(rows, scoring, tuple(dict.fromkeys(modes))).where(F.col("source") != candidates.REPEAT)
    named = scored.join(store.read(index.USER_INDEX), "user_idx").join(
        F.broadcast(store.read(index.ITEM_INDEX)), "item_idx"
    )
    keep = [*ITEM, "popular_score", *(name for name in scored.columns if name.startswith("score_"))]
    named.select(keep).toPandas().to_parquet(folder / "candidates.parquet")
    return model_metrics.decisions(store, run_date)


def report(rows: pd.DataFrame, horizon: int) -> dict[str, Any]:
    """Print and return the figures: by date, pooled with intervals of the differences, by scenario, and of the poor
    scenarios, those with fewer than POOR lists at a date."""
    mean = rows.groupby(["name", "run_date"])["ndcg"].mean().unstack()
    print(mean.assign(mean=mean.mean(axis=1)).sort_values("mean", ascending=False).round(4).to_string())
    by_list = rows.groupby(["name", "run_date", *judge.LIST])["ndcg"].mean().unstack("name")
    differences = differences_of(by_list)
    of_scenario = by_list.groupby("scenario").mean().round(4)
    print(of_scenario.assign(lists=by_list.groupby("scenario").size()).to_string())
    seeds = rows[rows["name"] == "published"].groupby("seed")["ndcg"].mean()
    poor = by_list[by_list.groupby(["run_date", "scenario"])["published"].transform("size") < POOR]
    print(f"scenarios with fewer than {POOR} lists: {len(poor)} lists, published {poor['published'].mean():.4f}")
    return {
        "horizon_days": horizon,
        "ndcg@10": {name: part.dropna().round(4).to_dict() for name, part in mean.T.items()},
        "differences": differences,
        "poor": {"lists": len(poor), "differences": differences_of(poor) if len(poor) else {}},
        "published_by_seed": seeds.round(4).tolist(),
        "lists": len(by_list),
    }


def differences_of(by_list: pd.DataFrame) -> dict[str, list[float]]:
    """Published minus each rival over the lists that both were judged on, with its interval; printed too."""
    found = {
        name: judge.interval((by_list["published"] - by_list[name]).dropna())
        for name in by_list.columns.drop("published")
        if by_list[name].notna().any()
    }
    table = pd.DataFrame(found, index=["published minus", "low", "high"]).T.sort_values("published minus")
    print(table.round(4).to_string())
    return {name: [round(value, 4) for value in values] for name, values in found.items()}
