"""What a night does around its stages. No Spark: stubs of session, store and stages."""

import sys
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recspark import pipeline
from recspark.errors import DataError, PublishError
from recspark.stages import check, recommendations
from recspark.summary import Summary
from recspark.tables import stage_runs
from recspark.warehouse import stage_log, store
from recspark.warehouse.lease import Lease, acquire
from tests.stages import hand_made

NIGHT = date(2024, 3, 1)


def test_publications_are_repaired_first_and_all_is_done_under_the_lease(monkeypatch, tmp_path):
    done: list[str] = []

    def configuration(*args: object) -> None:
        assert not (tmp_path / "_lease").exists()  # a mistake is found before anything is written
        done.append("configuration")

    def note(name: str) -> Summary:
        holder = acquire(str(tmp_path), "another run")
        assert isinstance(holder, Lease)  # the warehouse is in use, and another run is told in which stage
        assert holder.stage == ("" if name == "repair" else name)
        done.append(name)
        return Summary(name)

    monkeypatch.setattr(pipeline, "get_session", lambda settings, s3: (object(), False))
    stub = SimpleNamespace(
        stamp=lambda table: None, exists=lambda table: False, save_states=lambda: None, clear_staged=lambda: None,
        warehouse=str(tmp_path), run_id="run", add_columns=lambda table: None,
    )  # fmt: skip
    monkeypatch.setattr(store, "Store", lambda *args: stub)
    monkeypatch.setattr(check, "configuration", configuration)
    monkeypatch.setattr(recommendations, "repair", lambda store: note("repair"))
    for name in ("first", "second"):
        module = SimpleNamespace(refresh=lambda *args, name=name: note(name))
        monkeypatch.setitem(sys.modules, f"stub_of_{name}", module)
    monkeypatch.setattr(pipeline, "STAGES", {name: f"stub_of_{name}" for name in ("first", "second", "third")})
    begun, finished = [], []
    config, night = hand_made.config(tmp_path), date(2024, 3, 1)
    pipeline.execute(
        ("first", "second"), config, night, "run", False, begun.append, lambda summary, _: finished.append(summary)
    )
    assert done == ["configuration", "repair", "first", "second"]
    assert begun == ["first", "second"] == [summary.stage for summary in finished]
    # two rows are no commit
    assert [(one.stage, one.status) for one in stage_log.read(str(tmp_path))] == [("first", "done"), ("second", "done")]


def left_by_killed(warehouse: Path, num_rows: int) -> None:
    """Write down what a run did that was killed in its last stage."""
    killed = stage_log.StageLog(str(warehouse), "killed", NIGHT)
    for n in range(num_rows):
        killed.begin(f"stage {n}")
        if n < num_rows - 1:
            killed.end(Summary(f"stage {n}"))


def written_down(monkeypatch, warehouse: Path, check: Any = lambda: None) -> tuple[Any, list[tuple[str, str, str]]]:
    """(the context in which stages run, the rows that come into the table)."""
    put: list[tuple[str, str, str]] = []
    monkeypatch.setattr(
        stage_runs, "append", lambda _, rows: put.extend((one.run_id, one.status, one.error or "") for one in rows)
    )
    stub = SimpleNamespace(warehouse=str(warehouse), run_id="run")
    return pipeline._written_down(stub, SimpleNamespace(check=check), NIGHT), put


def test_the_next_night_puts_what_a_killed_one_left_into_the_table(monkeypatch, tmp_path):
    """Nine rows and one: as many as are worth a commit."""
    left_by_killed(tmp_path, pipeline.FEW - 1)
    context, put = written_down(monkeypatch, tmp_path)
    with context as entries:
        entries.begin("items")
        entries.end(Summary("items", skipped=True))
    assert put == [("killed", "done", "")] * 8 + [("killed", "killed", ""), ("run", "skipped", "")]
    assert stage_log.read(str(tmp_path)) == []


def test_a_few_rows_wait_for_the_next_run(monkeypatch, tmp_path):
    left_by_killed(tmp_path, pipeline.FEW - 2)
    context, put = written_down(monkeypatch, tmp_path)
    with context as entries:
        entries.begin("items")
        entries.end(Summary("items"))
    assert put == [] and len(stage_log.read(str(tmp_path))) == pipeline.FEW - 1


@pytest.mark.parametrize(
    ("error", "status"),
    [(PublishError("unlike"), "held"), (DataError("no rows"), "failed"), (ValueError("\n 7 of 9\nmore"), "failed")],
)
def test_a_run_that_ends_badly_has_its_rows_at_once(monkeypatch, tmp_path, error, status):
    context, put = written_down(monkeypatch, tmp_path)
    with pytest.raises(type(error)), context as entries:
        entries.begin("items")
        raise error
    said = {"PublishError": "unlike", "DataError": "no rows", "ValueError": "ValueError: 7 of 9"}
    assert put == [("run", status, said[type(error).__name__])]


def test_what_cannot_be_committed_stays_for_the_next_run(monkeypatch, tmp_path):
    """The error that ended the run is told, not that of the table."""
    context, _ = written_down(monkeypatch, tmp_path)
    monkeypatch.setattr(stage_runs, "append", lambda *_: 1 / 0)
    with pytest.raises(DataError, match="no rows"), context as entries:
        entries.begin("items")
        raise DataError("no rows")
    assert [one.error for one in stage_log.read(str(tmp_path))] == ["no rows"]


def test_a_run_that_lost_the_warehouse_writes_nothing_down(monkeypatch, tmp_path):
    """The run that took it over has closed the row, and writes the file."""

    def lost() -> None:
        raise DataError("run run lost the lease")

    context, put = written_down(monkeypatch, tmp_path, lost)
    with pytest.raises(DataError, match="lost"), context as entries:
        entries.begin("items")
        stage_log.StageLog(str(tmp_path), "other", NIGHT).begin("items")
        lost()
    assert put == []
    assert [(one.run_id, one.status) for one in stage_log.read(str(tmp_path))] == [
        ("run", "killed"), ("other", "running"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stamp", "warned"),
    [(None, 0), ({"run_id": "r", "fingerprint": "f"}, 1), ({"run_id": "r", "fingerprint": "f", "format": 2}, 0)],
)
def test_a_warehouse_of_an_earlier_version_is_named_once(monkeypatch, stamp, warned):
    """Its candidates, which such a run always writes again, were committed without a format."""
    lines: list[str] = []
    monkeypatch.setattr(pipeline.log, "warning", lambda text, *values: lines.append(text % values))
    pipeline._warn_of_rebuilds_after_upgrade(SimpleNamespace(stamp=lambda table: stamp, warehouse="/data/recs"))
    assert len(lines) == warned
    assert all("/data/recs was written by an earlier version: retrievers, candidates" in line for line in lines)
