"""Creating a lease in storages of every kind: two runs at once, a PUT sent twice, a client or a storage that ignores
the condition."""

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from recspark.errors import DataError
from recspark.warehouse import lease, lease_files
from recspark.warehouse.lease_files import LeaseFolder
from tests.object_store import SECRETS, ObjectStore


class Conditional(MemoryFileSystem):
    """A storage whose PUT has a condition, as S3 has: creating is one step."""

    protocol = "s3"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False
    one_step = threading.Lock()

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        with self.one_step:
            if mode == "create" and self.exists(path):
                raise FileExistsError(path)
            super().pipe_file(path, value)


class Unconditional(Conditional):
    """An older client, which takes `mode` and does nothing with it, or a storage that ignores the condition."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        MemoryFileSystem.pipe_file(self, path, value)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_files, "SETTLE_S", 0.01)
    monkeypatch.setattr(lease_files, "_tried", {})
    Conditional.store.clear()
    Conditional.pseudo_dirs[:] = [""]


def folder(fs: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch) -> LeaseFolder:
    """The leases of a warehouse on this file system, which `acquire` finds too."""
    found = LeaseFolder(fs, "/warehouse/_lease")
    monkeypatch.setattr(lease, "open_folder", lambda place, name: found)
    return found


def test_where_creating_is_one_step_and_where_it_is_not(tmp_path: Path) -> None:
    local = fsspec.filesystem("file")
    assert LeaseFolder(local, str(tmp_path)).is_exclusive()
    assert not LeaseFolder(local, "/Volumes/main/recs/_lease").is_exclusive()
    assert not LeaseFolder(fsspec.filesystem("memory"), "/w").is_exclusive()
    assert LeaseFolder(Conditional(), "/w").is_exclusive()
    assert not Conditional.store  # the probe is gone


def test_a_storage_that_ignores_the_condition_is_found_out() -> None:
    found = LeaseFolder(Unconditional(), "/w")
    assert not found.is_exclusive()
    assert found.path_of(7, "abc") == "/w/00000007-abc.json"


def test_a_client_without_conditions_is_found_out() -> None:
    class Older(Conditional):
        def pipe_file(self, path: str, value: bytes) -> None:
            MemoryFileSystem.pipe_file(self, path, value)

    assert not LeaseFolder(Older(), "/w").is_exclusive()


@pytest.mark.parametrize("told", (FileExistsError("/w"), TimeoutError("no answer"), OSError(22, "PreconditionFailed")))
def test_a_run_whose_put_was_sent_twice_has_its_own_lease(told: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first PUT was done and its answer was lost; the client's second one is told that the file exists."""

    class Retried(Conditional):
        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
            super().pipe_file(path, value, mode)
            if mode == "create" and path.endswith("1.json"):
                raise told

    folder(Retried(), monkeypatch)
    mine = lease.acquire("s3://w", "mine")
    assert isinstance(mine, lease.Held)
    mine.check()
    other = lease.acquire("s3://w", "other")
    assert isinstance(other, lease.Lease) and other.run_id == "mine"


def test_a_put_that_failed_is_an_error_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Conditional):
        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
            if path.endswith("1.json"):
                raise OSError(28, "No space left on device")
            super().pipe_file(path, value, mode)

    found = folder(Failing(), monkeypatch)
    with pytest.raises(OSError, match="No space"):
        lease.acquire("s3://w", "mine")
    assert found.newest() == 0


def test_a_folder_of_another_user_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Denied(Conditional):
        def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
            if path.endswith("1.json"):
                raise PermissionError(13, "Permission denied", path)
            super().pipe_file(path, value, mode)

    folder(Denied(), monkeypatch)
    with pytest.raises(DataError, match=r"s3://w cannot be written: .*Permission denied.*; give this user the right"):
        lease.acquire("s3://w", "mine")


def test_a_full_disk_leaves_no_empty_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullDisk:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> "FullDisk":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(lease_files, "open", lambda path, mode: FullDisk(open(path, mode)), raising=False)  # noqa: SIM115
    with pytest.raises(OSError, match="No space"):
        lease.acquire(str(tmp_path), "mine")
    assert list((tmp_path / lease.FOLDER).iterdir()) == []


def test_a_late_rival_never_takes_a_lease_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """It listed the folder before the holder wrote, was paused, and writes now, with a nonce that comes first."""
    found = folder(fsspec.filesystem("memory"), monkeypatch)
    held = lease.acquire("memory://w", "holder")
    assert isinstance(held, lease.Held)
    monkeypatch.setattr(LeaseFolder, "newest", lambda self: 0)
    monkeypatch.setattr(lease, "leases", lambda folder, number: ())
    monkeypatch.setattr(lease.uuid, "uuid4", lambda: type("First", (), {"hex": "0"}))
    late = lease.acquire("memory://w", "late")
    assert isinstance(late, lease.Lease) and late.run_id == "holder"
    held.check()
    assert [number for number, _ in found.files()] == [1]
    found.fs.rm("/warehouse", recursive=True)


@pytest.mark.parametrize(("other", "looks"), [("1", 1), ("9", 2)], ids=("the other's name is first", "mine is first"))
def test_of_two_that_see_each_other_the_first_name_has_it(
    other: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one whose name comes later takes its file away at its next look, for which the first one waits."""
    found = LeaseFolder(fsspec.filesystem("memory"), "/warehouse/_lease")
    mine, others = (found.path_of(1, nonce) for nonce in ("5", other))
    sleeps: list[float] = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        if len(sleeps) == 2:
            found.fs.rm_file(others)

    monkeypatch.setattr(lease_files, "time", SimpleNamespace(sleep=sleep))
    for path in (mine, others):
        found.fs.pipe_file(path, b"{}")
    has_it = other == "9"
    assert found.rival(1, mine) == (None if has_it else others)
    assert (len(sleeps), found.fs.exists(mine)) == (looks, has_it)
    found.fs.rm("/warehouse", recursive=True)


def paused(kind: type[MemoryFileSystem], seed: int) -> type[MemoryFileSystem]:
    """The same storage with a pause before every request, of a random length and sometimes long."""
    chance, choosing = random.Random(seed), threading.Lock()

    def pause() -> None:
        with choosing:
            seconds = chance.choice((0.0, 0.0, 0.001, 0.005, 0.03))
        time.sleep(seconds)

    class Paused(kind):  # type: ignore[valid-type, misc]
        def ls(self, *given: Any, **named: Any) -> Any:
            pause()
            return super().ls(*given, **named)

        def pipe_file(self, *given: Any, **named: Any) -> None:
            pause()
            super().pipe_file(*given, **named)

    return Paused


@pytest.mark.parametrize("kind", (Conditional, Unconditional, MemoryFileSystem))
def test_one_of_many_under_pauses(kind: type[MemoryFileSystem], monkeypatch: pytest.MonkeyPatch) -> None:
    """Five runs at once, ten times, with pauses between listing and writing: never two holders; none is lost."""
    for seed in range(10):
        fs = paused(kind, seed)()
        found = folder(fs, monkeypatch)
        winners: list[lease.Held] = []
        gate = threading.Barrier(5)

        def contend(name: str, gate: threading.Barrier = gate, winners: list[lease.Held] = winners) -> None:
            gate.wait()
            mine = lease.acquire("s3://w", name)
            if isinstance(mine, lease.Held):
                winners.append(mine)

        threads = [threading.Thread(target=contend, args=(f"run{i}",)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) <= 1
        if kind is Conditional:
            assert len(winners) == 1
        for winner in winners:
            winner.check()
        assert len(found.files()) == len(winners)  # who gave way took its file away
        fs.store.clear()
        fs.pseudo_dirs[:] = [""]


# -- a server of S3 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server on this machine; credentials and place come from the environment, as in a night."""
    with ObjectStore() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server.bucket("leases")


@pytest.mark.parametrize("scheme", ("s3", "s3a"))
def test_on_s3_a_lease_is_created_by_a_conditional_put(
    bucket: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moto.s3.responses import S3Response

    conditions: dict[str, Any] = {}
    real = S3Response.put_object

    def put_object(self: Any) -> Any:
        conditions[self.path.rsplit("/", 1)[-1]] = self.headers.get("If-None-Match")
        return real(self)

    monkeypatch.setattr(S3Response, "put_object", put_object)
    place = f"{scheme}://{bucket}/recs"
    with lease.hold(place, "first") as held:
        assert conditions["00000001.json"] == "*"
        refused = lease.acquire(place, "second")
        assert isinstance(refused, lease.Lease) and refused.run_id == "first"
        held.check()
    with lease.hold(place, "third") as held:
        assert held.number == 2
    fs, _ = fsspec.core.url_to_fs(place)
    left = json.loads(fs.cat_file(f"{bucket}/recs/_lease/00000002.json"))
    assert left["ended"] and left["run_id"] == "third"


def test_a_bucket_that_does_not_exist_is_one_line_and_is_not_made(bucket: str) -> None:
    with pytest.raises(
        DataError, match=r"^warehouse s3://mistyped/recs cannot be written: .*; give a folder or an URL"
    ):
        lease.acquire("s3://mistyped/recs", "run")
    assert not fsspec.filesystem("s3").exists("mistyped")


def test_missing_credentials_are_one_line(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # where a machine of AWS would find its role's
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(DataError, match=r"^warehouse s3://leases/recs cannot be written: Unable to locate credentials"):
        lease.acquire(f"s3://{bucket}/recs", "run")
