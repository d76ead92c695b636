"""The files of a lease in any storage: listing, reading, and creating one that no other run has created.

A lease is `<folder>/<number>.json` where the storage can create a file only if it does not exist: on a local disk, and
by a conditional PUT on S3, GCS and Azure. Elsewhere fsspec looks first and writes then, so two runs can both succeed;
there each run writes a file of its own, `<number>-<nonce>.json`, and `rival` decides.
"""

import logging
import os
import re
import time
import uuid
from dataclasses import dataclass
from datetime import datetime

import fsspec

from recspark.errors import DataError, is_passing

log = logging.getLogger(__name__)

SETTLE_S = 1.0  # until a listing shows what another run has just written
LOOKS = 5  # how often the first of several rivals looks whether the others have gone
NAME = re.compile(r"(\d{8,})(?:-[0-9a-f]+)?\.json(\..*tmp)?")
CONDITIONAL = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}  # storages whose PUT may have a condition
MOUNTED = ("/dbfs/", "/Volumes/")  # object stores of Databricks that look like a disk
_tried: dict[str, bool] = {}  # folder -> whether its storage refused to create a file twice


@dataclass(frozen=True)
class LeaseFolder:
    """The folder of the leases of one warehouse or catalog."""

    fs: fsspec.AbstractFileSystem
    path: str

    def files(self) -> list[tuple[int, str]]:
        """(number, path) of every lease, sorted."""
        return sorted((number, path) for number, path, partial in self._list() if not partial)

    def newest(self) -> int:
        """The highest number, 0 if there is none."""
        return max((number for number, _ in self.files()), default=0)

    def path_of(self, number: int, nonce: str) -> str:
        """Where a run with this nonce writes its lease."""
        name = f"{number:08d}" if self.is_exclusive() else f"{number:08d}-{nonce}"
        return f"{self.path}/{name}.json"

    def is_exclusive(self) -> bool:
        """Does creating a file that exists fail, as one step of the storage?"""
        if self._is_local():
            return not self.path.startswith(MOUNTED)
        if not self.may_have_conditions():
            return False
        place = self.fs.unstrip_protocol(self.path)
        if place not in _tried:
            _tried[place] = self._refuses_to_create_twice()
        return _tried[place]

    def may_have_conditions(self) -> bool:
        """Is it an object store that can create a file only if it does not exist?"""
        return bool(CONDITIONAL & set(self._protocols()))

    def create(self, path: str, data: bytes) -> bool:
        """Write a file that must not exist; False if another run has created it.

        A client that sends a PUT again, because the answer to the first one was lost, is told that the file exists; so
        the file is read: with this content it is this run's.
        """
        try:
            if self._is_local():
                self._create_local(path, data)
            else:
                self.fs.pipe_file(path, data, **({"mode": "create"} if self.is_exclusive() else {}))
        except Exception as error:  # each client has exceptions of its own for `it exists`
            found = self.read(path)
            if found is None and not isinstance(error, FileExistsError):
                time.sleep(SETTLE_S)  # S3 also refuses while another run's PUT is under way
                found = self.read(path)
                if found is None:
                    raise
            return found == data
        return True

    def rival(self, number: int, path: str) -> str | None:
        """The lease that comes before this run's `path`, if there is one; then this run removes its own.

        A run has the lease if, after it wrote its file, it sees no other one with this number or a higher one. Of two
        runs the one that looks later sees both files, so never do both have it, however long each is paused. If both
        see both, the one whose name comes later gives way, and the other looks again.
        """
        if not self.is_exclusive():
            time.sleep(SETTLE_S)
        mine, others = (number, path), [(0, "")]
        for _ in range(LOOKS):
            others = [other for other in self.files() if other[0] >= number and other != mine]
            if not others:
                return None
            if others[-1][0] > number or others[0] < mine:
                break
            time.sleep(SETTLE_S)
        self.remove(path)
        return others[-1][1]

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            return bytes(self.fs.cat_file(path))
        except FileNotFoundError:
            return None

    def written(self, path: str) -> float:
        """When a file was written, in seconds since the epoch; 0 if the storage does not say."""
        try:
            found: datetime = self.fs.modified(path)
            return found.timestamp()
        except (NotImplementedError, FileNotFoundError):
            return 0.0

    def overwrite(self, path: str, data: bytes) -> None:
        """Replace a file as a whole; where the storage cannot, a reader may find a part of it."""
        if not self._is_local():
            self.fs.pipe_file(path, data)
            return
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)

    def remove(self, path: str) -> None:
        """Delete a file, if it can be: one that stays holds nobody up for longer than a dead run does."""
        try:
            self.fs.rm_file(path)
        except Exception as error:
            log.warning("lease: %s stays: %s", path, error)

    def clear(self, up_to: int) -> None:
        """Delete the files up to a number, and what an interrupted `overwrite` left of them."""
        for number, path, _ in self._list():
            if number <= up_to:
                self.remove(path)

    def _list(self) -> list[tuple[int, str, bool]]:
        """(number, path, whether it is one that `overwrite` has not finished)."""
        self.fs.invalidate_cache(self.path)
        try:
            names = [path.rsplit("/", 1)[-1] for path in self.fs.ls(self.path, detail=False)]
        except FileNotFoundError:  # an object store has no empty folders
            return []
        matches = [match for name in names if (match := NAME.fullmatch(name))]
        return [(int(match[1]), f"{self.path}/{match[0]}", bool(match[2])) for match in matches]

    def _protocols(self) -> tuple[str, ...]:
        return (self.fs.protocol,) if isinstance(self.fs.protocol, str) else tuple(self.fs.protocol)

    def _is_local(self) -> bool:
        return "file" in self._protocols()

    def _create_local(self, path: str, data: bytes) -> None:
        with open(path, "xb") as file:  # a run that reads it while it is still empty takes it for held
            try:
                file.write(data)
                file.flush()
            except OSError:  # a full disk
                os.unlink(path)
                raise

    def _refuses_to_create_twice(self) -> bool:
        """Older clients leave the condition out without a word, and some storages do not know it."""
        probe = f"{self.path}/probe-{uuid.uuid4().hex}.txt"
        try:
            self.fs.pipe_file(probe, b"first", mode="create")
        except TypeError:  # a client without `mode`
            return False
        try:
            self.fs.pipe_file(probe, b"second", mode="create")
        except Exception:
            return self.read(probe) == b"first"
        finally:
            self.remove(probe)
        log.warning("lease: the storage of %s creates files that exist; runs are told apart by their nonces", self.path)
        return False


def open_folder(place: str, name: str) -> LeaseFolder:
    """The folder `name` in a warehouse or catalog, for its leases; it is made.

    Raises: DataError if nothing can be written there.
    """
    try:
        fs, root = fsspec.core.url_to_fs(place)
        folder = LeaseFolder(fs, f"{root.rstrip('/')}/{name}")
        if folder.may_have_conditions():
            folder.is_exclusive()  # writes; makedirs would create a bucket whose name is mistyped
        else:
            fs.makedirs(folder.path, exist_ok=True)
    except Exception as error:
        told = isinstance(error, (OSError, ValueError, ImportError)) or "Credentials" in type(error).__name__
        if not told or is_passing(error):
            raise
        raise DataError(f"warehouse {place} cannot be written: {error}; give a folder or an URL that can") from error
    return folder
