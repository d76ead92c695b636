"""What is known of a table's commits, whatever its log still has and whoever else wrote to it."""

import json

from recspark.warehouse import state
from recspark.warehouse.state import Commit, TableState, after

NEW = TableState("t")


def ours(version: int, operation: str = "WRITE", **metadata: object) -> Commit:
    return Commit(version, operation, json.dumps({"run_id": "r", **metadata}))


def test_a_slice_has_the_stamp_of_its_newest_commit() -> None:
    commits = [ours(2, as_of="2024-01-01", fingerprint="c"), ours(0, as_of="2024-01-01", fingerprint="a")]
    found = after(NEW, [*commits, ours(1, as_of="2024-01-02", fingerprint="b")])
    assert (found.seen, found.changed) == (2, 2)
    assert {name: stamp["fingerprint"] for name, stamp in found.stamps.items()} == {
        "as_of=2024-01-01": "c", "as_of=2024-01-02": "b", "": "c",
    }  # fmt: skip
    assert found.stamps["as_of=2024-01-02"]["version"] == 1


def test_housekeeping_changes_nothing() -> None:
    """Whoever does it: compacted files hold the same rows."""
    known = after(NEW, [ours(0, fingerprint="a")])
    found = after(known, [Commit(1, "OPTIMIZE", None), Commit(2, "VACUUM END", "nightly cleaner")])
    assert (found.seen, found.changed, found.stamps) == (2, 0, known.stamps)


def test_a_commit_of_others_ends_all_stamps_whatever_its_metadata() -> None:
    known = after(NEW, [ours(0, as_of="2024-01-01", fingerprint="a")])
    for text in (None, "", "by hand", "[1, 2]", "3", '{"ticket": 7}'):
        found = after(known, [Commit(1, "DELETE", text)])
        assert (found.changed, found.stamps) == (1, {}), text
    again = after(found, [ours(2, as_of="2024-01-02", fingerprint="b")])
    assert set(again.stamps) == {"as_of=2024-01-02", ""}  # the first slice must be made again too


def test_our_own_delete_ends_the_stamps_of_its_slices_alone() -> None:
    known = after(NEW, [ours(n, as_of=f"2024-01-0{n + 1}", fingerprint="a") for n in range(3)])
    found = after(known, [ours(3, "DELETE", dropped=["as_of=2024-01-01"])])
    assert (found.changed, set(found.stamps)) == (3, {"as_of=2024-01-02", "as_of=2024-01-03", ""})


def test_a_quiet_table_needs_no_log() -> None:
    known = after(NEW, [ours(0, fingerprint="a")])
    assert after(known, []) == known
    assert after(known, [ours(0, fingerprint="a")]) == known  # the newest commit, looked at again


def test_commits_that_the_log_has_lost_could_have_done_anything() -> None:
    known = after(NEW, [ours(0, as_of="2024-01-01", fingerprint="a")])
    found = after(known, [ours(5, as_of="2024-01-02", fingerprint="b")])  # 1 to 4 are cleaned away
    assert (found.changed, set(found.stamps)) == (5, {"as_of=2024-01-02", ""})
    assert after(known, [Commit(5, "OPTIMIZE", None)]).stamps == {}


def test_a_file_that_cannot_be_read_is_no_file(tmp_path) -> None:
    known = after(NEW, [ours(0, fingerprint="a")])
    assert state.read(str(tmp_path), "things") is None
    state.write(str(tmp_path), "things", known)
    assert state.read(str(tmp_path), "things") == known
    (tmp_path / "_state" / "things.json").write_text('{"table_id": "t", "seen')
    assert state.read(str(tmp_path), "things") is None
