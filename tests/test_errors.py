"""Which line and exit code an exception gets. The texts of Java are those of Spark's and Hadoop's classes."""

import errno
import socket
from typing import Any

import pytest
from py4j.protocol import Py4JNetworkError

from recspark.errors import BusyError, DataError, PublishError, TrainingError, described

JAVA = (
    "An error occurred while calling o1.save.\n: org.apache.spark.SparkException: Job aborted.\nCaused by: {}\n\tat x\n"
)


class OfBotocore(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"An error occurred ({status})")
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def caused_by(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def test_errors_for_people_have_their_codes() -> None:
    given = (DataError("a"), TrainingError("b"), PublishError("c"), BusyError("d"))
    assert [described(error) for error in given] == [("a", 2), ("b", 1), ("c", 3), ("d", 4)]
    worker = 'Traceback\n  File "x"\nrecspark.errors.DataError: no encoder\n'
    assert described(RuntimeError(f"Job aborted\n{worker}")) == ("no encoder", 2)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError("read timed out"),
        OSError(errno.EHOSTUNREACH, "no route"),
        socket.gaierror(socket.EAI_AGAIN, "temporary failure"),
        OfBotocore(503),
        caused_by(OSError(errno.EBUSY, "slow down"), OfBotocore(503)),
        caused_by(RuntimeError("could not connect to the endpoint"), ConnectionRefusedError("refused")),
        RuntimeError(JAVA.format("java.net.SocketTimeoutException: Read timed out")),
        RuntimeError(JAVA.format("awssdk.services.s3.model.S3Exception: (Service: S3, Status Code: 503,")),
        RuntimeError(JAVA.format("org.apache.hadoop.fs.s3a.AWSServiceThrottledException: PUT on x: Slow Down")),
        RuntimeError(JAVA.format("java.net.UnknownHostException: b.s3: Temporary failure in name resolution")),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[-40:],
)  # fmt: skip
def test_a_passing_fault(error: Exception) -> None:
    line, code = described(error)
    assert code == 5 and line.endswith("; try again")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        BrokenPipeError(errno.EPIPE, "a reader of our output has gone"),
        socket.gaierror(socket.EAI_NONAME, "no such host"),
        OfBotocore(403),
        ValueError("503"),
        RuntimeError(JAVA.format("java.io.IOException: No space left on device")),
        RuntimeError(JAVA.format("java.net.UnknownHostException: mistyped.example.com: Name or service not known")),
        RuntimeError(JAVA.format("S3Exception: Access Denied (Service: S3, Status Code: 403, Request ID: 1)")),
        RuntimeError("java.net.ConnectException: retried\nCaused by: java.lang.OutOfMemoryError: Java heap space"),
        caused_by(Py4JNetworkError("Answer from Java side is empty"), ConnectionRefusedError(111, "Java has died")),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[-40:],
)  # fmt: skip
def test_what_would_be_met_again_is_a_crash(error: Exception) -> None:
    line, code = described(error)
    assert code == 1 and "try again" not in line


def test_what_happened_before_counts_unless_it_is_put_away() -> None:
    def raised(hide: bool) -> Any:
        try:
            try:
                raise ConnectionResetError("reset")
            except ConnectionResetError as error:
                if hide:
                    raise ValueError("a fault of ours") from None
                raise ValueError("could not connect") from error
        except ValueError as error:
            return described(error)[1]

    assert (raised(hide=False), raised(hide=True)) == (5, 1)
