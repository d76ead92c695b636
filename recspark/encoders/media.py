"""Read the files that rows of a catalogue name. A catalogue is written by others, so only regular files below allowed
roots are read, up to a size and a time; all else is an item without that file, with the reason.

A root is a folder, or an URL of a folder. `data:` URIs hold their content themselves and are always read.
"""

import base64
import http.client
import ipaddress
import os
import re
import socket
import ssl
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TimedOut
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread, Timer
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import fsspec

from recspark.encoders.batches import TOO_LARGE, Unreadable
from recspark.errors import ConfigError

MAX_BYTES = 1 << 28  # of a file
DEADLINE_S = 60.0  # of a file, from asking for its address to its last byte
SILENT_S = 20.0  # without a byte of an answer

NOT_FOUND, OUTSIDE = "cannot be opened", "outside media_roots"
NOT_REGULAR, NOT_PUBLIC, TOO_SLOW = "no regular file", "address is not public", "took too long"

SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")
LOCAL = ("file", "local")
SAME = {"s3a": "s3"}  # two names of one store
PORTS = {"http": 80, "https": 443}
OF_THE_SYSTEM = ("/proc/", "/sys/", "/dev/")  # regular files there tell of the process, whatever the roots are
# Machines of clouds ask these for their credentials: one has a public address, one leads to any IPv4 address.
METADATA = (ipaddress.ip_network("168.63.129.16/32"), ipaddress.ip_network("64:ff9b::/96"))


@dataclass(frozen=True)
class Place:
    """A file or folder: `scheme` is empty on this machine; `parts` of the path, without `.` and empty ones."""

    scheme: str
    host: str
    parts: tuple[str, ...]

    def below(self, root: "Place") -> bool:
        return (self.scheme, self.host) == (root.scheme, root.host) and self.parts[: len(root.parts)] == root.parts


def read(uri: str, roots: Sequence[str] = ()) -> bytes:
    """The content of the file at a path or URI. `roots`: where it may lie.

    Raises: Unreadable with the reason; ConfigError where the library for that kind of store is missing.
    """
    try:
        content = _content(uri) if uri[:5].lower() == "data:" else _within(DEADLINE_S, lambda: _read(uri, roots))
    except Unreadable:
        raise
    except ImportError as error:
        raise ConfigError(f"items.media: {uri.split(':', maxsplit=1)[0]}: {error}") from None
    except TimeoutError as error:
        raise Unreadable(TOO_SLOW) from error
    except Exception as error:  # each file system has its own error types
        raise Unreadable(NOT_FOUND) from error
    if len(content) > MAX_BYTES:
        raise Unreadable(TOO_LARGE)
    return content


def parse(uri: str) -> Place:
    """A path or URI in parts; a path starts at the working directory, and its links are followed.

    Raises: ValueError for what names no one place: chained protocols, `..` in an URL, a user, control characters.
    """
    if "::" in uri or any(ord(letter) < 32 for letter in uri):
        raise ValueError("a chain of protocols, or control characters")
    scheme, rest = _split(uri)
    if not scheme:
        return Place("", "", _parts(os.path.realpath(rest)))
    if "\\" in uri or ".." in re.split("[/?#]", unquote(unquote(uri))):
        raise ValueError("a backslash, or `..`")
    if scheme not in PORTS:
        host, _, path = rest.removeprefix("//").partition("/")
        return Place(SAME.get(scheme, scheme), host, _parts(path))
    url = urlsplit(uri)
    if "@" in url.netloc or not url.hostname:
        raise ValueError("a user, or no host")
    return Place(scheme, f"{url.hostname}:{url.port or PORTS[scheme]}", _parts(url.path))


def is_public(address: str) -> bool:
    """Is it an address of the open internet, and no service of the cloud that this machine may stand in?"""
    ip = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in METADATA)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split("/") if part not in ("", "."))


def _split(uri: str) -> tuple[str, str]:
    """(scheme, what follows its colon); ("", path) of a local file.

    Raises: ValueError for a file of another machine.
    """
    found = SCHEME.match(uri)
    scheme, rest = (found[1].lower(), uri[found.end() :]) if found else ("", uri)
    if scheme not in LOCAL:
        return scheme, rest
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host not in ("", "localhost"):
            raise ValueError("a file of another machine")
        rest = slash + path
    return "", rest


def _content(uri: str) -> bytes:
    about, _, data = uri.partition(",")
    return base64.b64decode(data) if about.endswith("base64") else unquote_to_bytes(data)


def _within(seconds: float, work: Callable[[], bytes]) -> bytes:
    """What `work` returns. After some seconds nobody waits for it any more: a disk that does not answer cannot be
    interrupted."""
    done: Future[bytes] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return done.result(seconds)
    except TimedOut as error:
        raise TimeoutError from error


def _read(uri: str, roots: Sequence[str]) -> bytes:
    try:
        place = parse(uri)
    except ValueError as error:
        raise Unreadable(OUTSIDE) from error
    if not any(place.below(parse(root)) for root in roots):
        raise Unreadable(OUTSIDE)
    if place.scheme:
        return _read_http(uri) if place.scheme in PORTS else _read_store(uri)
    return _read_local("/" + "/".join(place.parts))


def _read_local(real: str) -> bytes:
    """`real`: an absolute path without links."""
    if real.startswith(OF_THE_SYSTEM):
        raise Unreadable(OUTSIDE)
    if not stat.S_ISREG(os.stat(real).st_mode):  # before it is opened: a device may do something
        raise Unreadable(NOT_REGULAR)
    # a pipe that has just taken its place would wait for a writer; a link would lead elsewhere
    with open(os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Unreadable(NOT_REGULAR)
        return file.read(MAX_BYTES + 1)


def _read_store(uri: str) -> bytes:
    with fsspec.open(uri, "rb") as file:
        return bytes(file.read(MAX_BYTES + 1))


class _Pinned(http.client.HTTPConnection):
    """A connection to the address that was looked at, whatever the name's address is by now."""

    def __init__(self, host: str, port: int, address: str, secure: bool) -> None:
        super().__init__(host, port)
        self._address, self._secure = address, secure
        self.hung_up = False
        self._line: socket.socket | None = None  # an answer keeps it when the connection has let it go

    def connect(self) -> None:
        self._line = self.sock = socket.create_connection((self._address, self.port), SILENT_S)
        if self._secure:
            self._line = self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)

    def hang_up(self) -> None:
        """End what waits for the other side, in whatever thread."""
        self.hung_up = True
        with suppress(OSError):
            if self._line is not None:
                self._line.shutdown(socket.SHUT_RDWR)


def _read_http(uri: str) -> bytes:
    """A redirection is not followed: it may lead anywhere."""
    url = urlsplit(uri)
    host, port = url.hostname or "", url.port or PORTS[url.scheme]
    addresses = [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not addresses or not all(map(is_public, addresses)):
        raise Unreadable(NOT_PUBLIC)
    connection = _Pinned(host, port, addresses[0], url.scheme == "https")
    watch = Timer(DEADLINE_S, connection.hang_up)
    watch.daemon = True
    watch.start()
    try:
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "recspark"})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise Unreadable(NOT_FOUND)
        content = answer.read(MAX_BYTES + 1)
        if connection.hung_up:  # what was read may be a part
            raise TimeoutError
        if answer.length and len(content) <= MAX_BYTES:  # bytes that were promised and did not come
            raise Unreadable(NOT_FOUND)
        return content
    finally:
        watch.cancel()
        connection.close()
