"""What a night does around its stages. No Spark: stubs of session, store and stages."""

import sys
from datetime import date
from types import SimpleNamespace

import pytest

from recspark import pipeline
from recspark.stages import check, recommendations
from recspark.summary import Summary
from recspark.warehouse import store
from recspark.warehouse.lease import Lease, acquire
from tests.stages import hand_made


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
    nothing = dict.fromkeys(("save_states", "clear_staged"), lambda: None)
    stub = SimpleNamespace(stamp=lambda table: None, exists=lambda table: False, **nothing)
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
