"""What the kills are judged by: rows of Delta's files, differences, and a reader that notices half a night."""

import json
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.night import delta_files, kills
from recspark.errors import ConfigError


def commit(table: Path, version: int, add: dict[str, list[dict[str, object]]], remove: tuple[str, ...] = ()) -> None:
    """A commit of hand-made files, all of the partition run_date, which stands before the first `_` of their names."""
    (table / "_delta_log").mkdir(parents=True, exist_ok=True)
    actions: list[dict[str, object]] = [{"remove": {"path": name}} for name in remove]
    for name, rows in add.items():
        pq.write_table(pa.Table.from_pylist(rows), table / name)
        actions.append({"add": {"path": name, "partitionValues": {"run_date": name.split("_")[0]}}})
    text = "\n".join(map(json.dumps, actions))
    (table / "_delta_log" / f"{version:020d}.json").write_text(text)


def lists(run_id: str, size: int = 2) -> list[dict[str, object]]:
    return [{"user_id": f"u{n}", "run_id": run_id} for n in range(size)]


def test_the_newest_version_is_read(tmp_path: Path) -> None:
    commit(tmp_path, 0, {f"{kills.FIRST}_a.parquet": lists("r1")})
    commit(tmp_path, 1, {f"{kills.FIRST}_b.parquet": lists("r2", 3)}, (f"{kills.FIRST}_a.parquet",))
    found = delta_files.read(tmp_path)
    assert found.to_dict("list") == {
        "user_id": ["u0", "u1", "u2"], "run_id": ["r2"] * 3, "run_date": [kills.FIRST] * 3,
    }  # fmt: skip
    assert list(delta_files.read(tmp_path, ["run_date"]).columns) == ["run_date"]


def seen(table: Path, calm: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(kills, "LOOK_S", 0.01)
    reader = kills.Reader(table, calm)
    reader.thread.start()
    while reader.looks < 3 and not reader.bad:
        time.sleep(0.01)
    reader.stop.set()
    reader.thread.join()
    return reader.bad


def test_a_reader_notices_half_a_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("calm", "whole", "half", "two", "gone"):
        commit(tmp_path / place, 0, {f"{kills.FIRST}_a.parquet": lists("r1")})
    for place in ("calm", "whole"):
        commit(tmp_path / place, 1, {f"{kills.TONIGHT}_a.parquet": lists("r2", 4)})
    commit(tmp_path / "half", 1, {f"{kills.TONIGHT}_a.parquet": lists("r2", 3)})
    commit(tmp_path / "two", 1, {f"{kills.TONIGHT}_a.parquet": [*lists("r2"), *lists("r3")]})
    commit(tmp_path / "gone", 1, {f"{kills.TONIGHT}_a.parquet": lists("r2", 4)}, (f"{kills.FIRST}_a.parquet",))
    found = {
        place: seen(tmp_path / place, tmp_path / "calm", monkeypatch) for place in ("whole", "half", "two", "gone")
    }
    assert found["whole"] == [] and all(found[place] for place in ("half", "two", "gone"))


def test_differences_by_hand() -> None:
    left = pd.DataFrame(
        {"k": ["b", "a"], "x": [1.0, 2.0], "run_id": ["r", "r"], "map": [[("p", "1"), ("q", "2")], None]}
    )
    same = pd.DataFrame(
        {"k": ["a", "b"], "x": [2.0, 1.0 + 1e-9], "run_id": ["s", "s"], "map": [None, [("q", "2"), ("p", "1")]]}
    )
    left, same = (rows.assign(vector=[b"\x95" + k.encode() for k in rows["k"]]) for rows in (left, same))  # no UTF-8
    one, other = (kills.ordered(rows, ("k",)) for rows in (left, same))
    assert kills.differences(one, other) == []
    assert kills.differences(one, other.assign(x=[2.0, 1.1])) == ["x differs in 1 rows"]
    assert kills.differences(one, other.assign(k=["a", "c"])) == ["k differs in 1 rows"]
    assert kills.differences(one, other[:1]) == ["2 rows, 1 after the kill"]


def test_a_chain_goes_through_every_point_and_on_where_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A night of the points a, b1, b2, b3, c. What a run made is there for the next, but b1 to b3 need one run."""
    (tmp_path / "calm.json").write_text('{"seconds": 10.0}')
    for place in ("before", "calm"):
        commit(tmp_path / place / "recommendations", 0, {f"{kills.FIRST}_a.parquet": lists("r1")})
    todo = ["a", "b1", "b2", "b3", "c"]
    asked: list[int] = []

    def killed(folder: Path, point: int, limit_s: float) -> tuple[int, list[str]]:
        asked.append(point)
        made = todo[:point]
        if not point or len(made) < point:
            return 0, made
        for name in made:
            if name[0] != "b" or "b3" in made:
                todo.remove(name)
        return -9, made

    monkeypatch.setattr(kills, "killed", killed)
    monkeypatch.setattr(kills, "INDICES", {})
    rows = list(kills.chain(tmp_path, "points", [], 99))
    assert [row["last"] for row in rows[:-1]] == ["a", "b1", "b1", "b2", "b1", "b3", "c"]
    assert rows[-1]["bad"] == [] and asked == [1, 1, 1, 2, 1, 3, 1, 1]
    todo[:] = ["a"]
    rows = list(kills.chain(tmp_path, "points", [], 0))  # no kill: the whole night
    assert len(rows) == 1 and asked[-1] == 0


def test_chains_in_their_order() -> None:
    kill = [{"chain": "points", "last": "a"}]
    end = [{"chain": "points", "bad": [], "looks": 3}]
    assert kills.next_chain([], 2) == "points" == kills.next_chain(kill, 2)
    assert kills.next_chain(kill + end, 2) == "times 1" and kills.next_chain(kill + end, 0) is None
    times = [{"chain": "times 1", "last": "a"}, {"chain": "times 1", "last": ""}]
    assert kills.next_chain(kill + end + times, 2) == "times 1"  # its end is not there yet
    times.append({"chain": "times 1", "bad": []})
    assert kills.next_chain(kill + end + times, 2) is None and kills.of_times(kill + end + times) == 2
    assert kills.next_chain(kill + end + times, 3) == "times 2"


def test_nights_of_another_version_are_not_compared_with(tmp_path: Path) -> None:
    calm = tmp_path / "calm.json"
    calm.write_text(json.dumps({"seconds": 1.0, "code": "older"}))
    with pytest.raises(ConfigError, match="found nights of another version"):
        kills.prepare(tmp_path)
    calm.write_text(json.dumps({"seconds": 1.0, "code": kills.code_now()}))
    kills.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == [calm]
