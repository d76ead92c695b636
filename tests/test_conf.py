"""Every YAML of conf/ on small data of its kind: what its expressions read, and, slowly, a whole night."""

import random
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recspark import cli, pipeline
from recspark.config.load import load
from tests.paths import ROOT

FIRST = datetime(2000, 1, 1, tzinfo=timezone.utc)
SMALL = (
    "training_examples.label_days=14",
    "training_examples.num_windows=2",
    "candidates.depth=20",
    "scenarios.min_users=20",
    "ranker.max_epochs=1",
    "gbdt.max_rounds=20",
)


def events(days: int = 100) -> pd.DataFrame:
    """60 users of two tastes, 16 of the 40 items of theirs each, at random days."""
    draw = random.Random(0)
    rows = [
        (f"u{user}", f"i{item}", FIRST + timedelta(days=draw.randrange(days), minutes=user))
        for user in range(60)
        for item in draw.sample([n for n in range(80) if n % 2 == user % 2], 16)
    ]
    return pd.DataFrame(rows, columns=["user", "item", "at"]).sort_values("at", ignore_index=True)


def online_retail(folder: Path) -> dict[str, str]:
    return {}  # the embedded data


def xmarket(folder: Path) -> dict[str, str]:
    rows = events()
    for market, part in rows.groupby(rows.index % 2):
        named = part.assign(userId=part["user"], itemId=part["item"], rate=4.0, date=part["at"].dt.strftime("%Y-%m-%d"))
        file = folder / f"{('de', 'fr')[int(str(market))]}_5core.txt"
        named[["userId", "itemId", "rate", "date"]].to_csv(file, sep=" ", index=False)
    return {"source.interactions": f"{folder}/*_5core.txt"}


def amazon_beauty_electronics(folder: Path) -> dict[str, str]:
    rows = events()
    named = rows.assign(
        user_id=rows["user"], item_id=rows["item"], domain="beauty", timestamp=seconds(rows), position=0
    )
    named.loc[named["item"].str[1:].astype(int) % 4 > 1, "domain"] = "electronics"
    named[["user_id", "item_id", "domain", "timestamp", "position"]].to_csv(folder / "events.csv", index=False)
    return {"source.interactions": f"{folder}/events.csv"}


def retail_rocket(folder: Path) -> dict[str, str]:
    rows = events()
    done = [("view", "view", "cart", "buy")[n % 4] for n in range(len(rows))]
    named = rows.assign(user_id=rows["user"], item_id=rows["item"], event=done, timestamp=seconds(rows))
    named[["user_id", "item_id", "event", "timestamp"]].to_csv(folder / "events.csv", index=False)
    return {"source.interactions": f"{folder}/events.csv"}


def movielens(folder: Path) -> dict[str, str]:
    rows = events()
    order = rows.groupby("user").cumcount() * 18  # as if a user had rated 17 films between two of these
    number = {name: rows[name].str[1:].astype("int32") for name in ("user", "item")}
    named = pd.DataFrame({"user_id": number["user"], "movie_id": number["item"], "rating": 4, "seq_pos": order})
    named.astype("int32").to_parquet(folder / "interactions.parquet")
    films = [f"{n}::Amélie {n} (2001)::{('Comedy', 'Drama')[n % 2]}|Film" for n in range(80)]
    (folder / "movies.dat").write_text("\n".join(films) + "\n", encoding="latin-1")
    return {"source.interactions": f"{folder}/interactions.parquet", "source.items": f"{folder}/movies.dat"}


def minimal(folder: Path) -> dict[str, str]:
    return {}


def seconds(rows: pd.DataFrame) -> pd.Series:
    return (rows["at"] - FIRST).dt.total_seconds().astype(int) + int(FIRST.timestamp())


KINDS: dict[str, Callable[[Path], dict[str, str]]] = {
    one.__name__: one for one in (online_retail, xmarket, amazon_beauty_electronics, retail_rocket, movielens, minimal)
}


def sets_of(kind: str, folder: Path) -> tuple[str, ...]:
    return tuple(f"{section}.paths=['{path}']" for section, path in KINDS[kind](folder).items())


def test_every_file_of_conf_is_tried() -> None:
    assert {path.stem for path in (ROOT / "conf").glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_its_expressions_read_data_of_its_kind(spark: Any, tmp_path: Path, kind: str, monkeypatch: Any) -> None:
    monkeypatch.chdir(ROOT)
    config = load(f"conf/{kind}.yaml", sets_of(kind, tmp_path))
    lines = list(pipeline.check(config, config.run_date or date(2024, 1, 1)))
    [found] = [line for line in lines if line.startswith("source.interactions: of the first")]
    usable = int(found.split(" rows ")[1].split(" usable")[0].replace(",", ""))
    assert usable > 700, found  # a quarter of Online Retail has no user


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("xmarket", "amazon_beauty_electronics", "retail_rocket", "movielens"))
def test_a_night_of_its_kind(spark: Any, tmp_path: Path, kind: str, capsys: Any) -> None:
    night = "2000-03-01" if kind == "movielens" else "2000-04-10"  # after the last event
    sets = (*sets_of(kind, tmp_path), f"warehouse={tmp_path}/warehouse", *SMALL)
    code = cli.run(tuple(pipeline.STAGES), str(ROOT / "conf" / f"{kind}.yaml"), night, sets)
    assert code == 0, capsys.readouterr().err[-3000:]
    lists = spark.read.format("delta").load(f"{tmp_path}/warehouse/recommendations")
    sizes = lists.groupBy("scenario", "user_id").count()
    assert sizes.count() >= 60 and sizes.where("count <> 10").count() == 0
