"""A hostile catalogue: nothing outside the roots is opened, and no name makes a task wait for ever."""

import http.server
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from recspark.encoders import media
from recspark.encoders.batches import Unreadable
from recspark.encoders.media import NOT_FOUND, NOT_PUBLIC, NOT_REGULAR, OUTSIDE, TOO_SLOW, is_public
from recspark.errors import ConfigError


def refusal(uri: str, *roots: object) -> str:
    with pytest.raises(Unreadable) as raised:
        media.read(uri, [str(root) for root in roots])
    return str(raised.value)


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names have one public address; to connect is an error."""
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("93.184.216.34", 80))])
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection was made"))


def test_what_a_root_allows(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_bytes(b"3")
    monkeypatch.chdir(tmp_path)
    for uri in (f"{tmp_path}/in/a.txt", f"file://{tmp_path}/in/a.txt", f"file:{tmp_path}/in/a.txt", "in/a.txt",
                f"file://localhost{tmp_path}/in/a.txt", "in/../in/./a.txt"):  # fmt: skip
        assert media.read(uri, [str(tmp_path / "in")]) == b"3"
        assert refusal(uri, tmp_path / "i") == OUTSIDE  # whole names count
        assert refusal(uri) == OUTSIDE
    assert media.read("data:;base64,Nw==") == b"7"
    assert media.read("data:,a%20b") == b"a b"
    assert media.read("data:,a::file:///etc/passwd") == b"a::file:///etc/passwd"
    assert refusal(f"{tmp_path}/in/gone", tmp_path) == NOT_FOUND
    assert refusal("data:;base64,N", tmp_path) == NOT_FOUND


def test_no_path_leads_out_of_a_root(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "in/file").symlink_to(tmp_path / "secret")
    (tmp_path / "in/folder").symlink_to(tmp_path)
    (tmp_path / "in/environ").symlink_to("/proc/self/environ")
    root = tmp_path / "in"
    for uri in ("file:///etc/passwd", "/etc/passwd", "/proc/self/environ", f"{root}/../secret", f"{root}/file",
                f"{root}/folder/secret", f"{root}/environ", f"file://other{root}/file", "~/.ssh/id_rsa",
                f"simplecache::file://{tmp_path}/secret", f"zip://x::{tmp_path}/secret", f"local://{tmp_path}/secret",
                f"{root}/a\0b", "ftp://x/y", "", "::", "C:\\secret"):  # fmt: skip
        assert refusal(uri, root) == OUTSIDE, uri


def test_the_system_s_own_files_are_refused_below_any_root():
    for uri in ("/proc/self/environ", "/proc/self/root/proc/self/environ", "/dev/stdin", "/sys/kernel/uevent_seqnum"):
        assert refusal(uri, "/") in (OUTSIDE, NOT_REGULAR, NOT_FOUND), uri


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    began = time.monotonic()
    assert [refusal(str(tmp_path / name), tmp_path) for name in ("pipe", "socket", ".")] == [NOT_REGULAR] * 3
    listening.close()
    assert time.monotonic() - began < 5


def test_a_file_that_is_too_large_or_takes_too_long(tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(b"12345")
    monkeypatch.setattr(media, "MAX_BYTES", 4)
    assert refusal(str(tmp_path / "large"), tmp_path) == "too large"
    assert refusal("data:,12345") == "too large"
    monkeypatch.setattr(media, "DEADLINE_S", 0.1)
    monkeypatch.setattr(media, "_read_local", lambda _: time.sleep(1))
    assert refusal(str(tmp_path / "large"), tmp_path) == TOO_SLOW


def test_a_store_without_its_library_ends_the_job(monkeypatch):
    def missing(uri: str, mode: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(media.fsspec, "open", missing)
    with pytest.raises(ConfigError, match=r"^items.media: s3: Install s3fs"):
        media.read("s3://bucket/1.jpg", ["s3a://bucket"])


def test_an_url_must_lie_below_a_root(no_connection):
    roots = ("https://cdn.example.org/images", "s3://bucket/images/")
    for uri in ("http://169.254.169.254/latest/meta-data/", "http://localhost/", "https://cdn.example.org/",
                "http://cdn.example.org/images/1.jpg", "https://cdn.example.org:8443/images/1.jpg",
                "https://cdn.example.org/images2/1.jpg", "https://cdn.example.org/images/../1.jpg",
                "https://cdn.example.org/images/%2e%2e/1.jpg", "https://cdn.example.org/images/%252e%252e/1.jpg",
                "https://cdn.example.org/images\\..\\1.jpg", "https://cdn.example.org@169.254.169.254/images/1.jpg",
                "https://me:word@cdn.example.org/images/1.jpg", "https://cdn.example.org.evil.net/images/1.jpg",
                "https:///images/1.jpg", "https://[::1]/images/1.jpg", "https://cdn.example.org:x/images/1.jpg",
                "s3://bucket/secret/1.jpg", "s3://other/images/1.jpg", "s3://bucket/images?/../../secret",
                "s3://bucket/images/a.zip::file:///etc/passwd"):  # fmt: skip
        assert refusal(uri, *roots) == OUTSIDE, uri


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("::ffff:93.184.216.34", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("192.168.0.1", False), ("172.16.0.1", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("100.100.100.200", False), ("168.63.129.16", False), ("224.0.0.1", False),
        ("::1", False), ("fe80::1%eth0", False), ("fd00:ec2::254", False), ("::ffff:127.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False), ("2002:7f00:1::", False), ("ff02::1", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address, expected):
    assert is_public(address) is expected


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0x7f.1", "2130706433", "[::1]", "169.254.169.254"])
def test_a_private_address_is_refused_before_a_connection_although_a_root_names_it(host, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("a connection was made"))
    assert refusal(f"http://{host}/1.jpg", f"http://{host}/") in (NOT_PUBLIC, OUTSIDE)  # `::` is refused


def test_one_private_address_among_public_ones_is_enough(no_connection, monkeypatch):
    found = [(2, 1, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert refusal("http://cdn.example.org/1.jpg", "http://cdn.example.org") == NOT_PUBLIC


class Answer(http.server.BaseHTTPRequestHandler):
    """/ok: a file; /slow: a byte now and then; /away: a redirection."""

    def do_GET(self) -> None:
        if self.path.startswith("/images/away"):
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            self.end_headers()
            return
        self.send_response(404 if "gone" in self.path else 200)
        if "short" in self.path:
            self.send_header("Content-Length", "1000")
        self.end_headers()
        if "slow" not in self.path:
            self.wfile.write(f"{self.path} of {self.headers['Host']}".encode())
            return
        try:
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:  # hung up
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Below http://cdn.example.org, whose address is looked up once, and public."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        asked: list[str] = []

        def look_up(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
            asked.append(host)
            return [(2, 1, 6, "", ("127.0.0.1", 0))]

        connect = socket.create_connection
        monkeypatch.setattr(media, "is_public", lambda address: address == "127.0.0.1")
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        monkeypatch.setattr(socket, "create_connection", lambda place, timeout: _connect(place, timeout, connect))
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://cdn.example.org:{listening.server_port}/images"
        assert set(asked) <= {"cdn.example.org"}
        listening.shutdown()


def _connect(place: tuple[str, int], timeout: float, connect: object) -> socket.socket:
    line = socket.socket()
    line.settimeout(timeout)
    line.connect(place)
    return line


def test_files_of_the_web(server, monkeypatch):
    host = server.split("/")[2]
    assert media.read(f"{server}/ok?size=2", [server]) == f"/images/ok?size=2 of {host}".encode()
    assert refusal(f"{server}/gone", server) == NOT_FOUND
    assert refusal(f"{server}/short", server) == NOT_FOUND
    assert refusal(f"{server}/away", server) == NOT_FOUND  # not followed
    monkeypatch.setattr(media, "DEADLINE_S", 0.3)
    before = threading.active_count()
    assert refusal(f"{server}/slow", server) == TOO_SLOW
    with pytest.raises(TimeoutError):  # not the bytes that have come by then
        media._read_http(f"{server}/slow")
    time.sleep(0.5)
    assert threading.active_count() <= before + 1  # of the server; nobody reads on
