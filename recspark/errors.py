"""Errors for people: each message names where it happened, what was found, what was expected and how to fix it."""

import errno
import re
import socket
from collections.abc import Iterator

# of Spark: another type or another header in one of the files
DIFFERING = re.compile(
    r"(Encountered error while reading file .*?actual Parquet type:? \w+)"
    r"|(CSV header does not conform to the schema.*?CSV file: \S+)"
    r"|(Number of column in CSV header is not equal.*?CSV file: \S+)",
    re.DOTALL,
)
HEADER = re.compile(r"Header: (.*?)\s*Schema: .*CSV file: (\S+)", re.DOTALL)
# of Spark: a file that ends too early, or whose bytes are not those of its format; other causes may pass
DAMAGE = (
    "Unexpected end of input stream|not a gzip file|is not a Parquet file|can not read class org.apache.parquet"
    "|ParquetDecodingException|EOFException|ZipException|incorrect header check|incorrect data check|invalid code"
    "|invalid distance|invalid stored|invalid block|invalid bit|unknown compression method|Could not decompress"
    "|FAILED_TO_UNCOMPRESS|TProtocolException"
)
DAMAGED = re.compile(rf"Encountered error while reading file (?P<file>.*?)\.\s.*?(?P<why>{DAMAGE})", re.DOTALL)
JAVA_CAUSE = re.compile(r"^Caused by: (.+)$", re.MULTILINE)  # the last one is the root of it
# the last line of a worker's traceback
WORKER_ERROR = re.compile(r"^recspark\.errors\.((?:Config|Schema|Data|Training|Publish)Error): (.+)$", re.MULTILINE)
CRASH, HELD, BUSY, PASSING = 1, 3, 4, 5  # exit codes
# Faults of a network or of a storage that had too much to do: another try may not meet them again. A host that does not
# exist or a right that is missing would be met again, and so would a full disk.
PASSING_STATUS = {429, 500, 502, 503, 504}  # of HTTP
PASSING_ERRNO = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.ESTALE}
PASSING_JAVA = re.compile(
    r"java[.]net[.](ConnectException|SocketTimeoutException|NoRouteToHostException|SocketException: Connection reset)"
    r"|Temporary failure in name resolution|java[.]sql[.]SQL(Transient\w*|Recoverable)Exception"
    r"|Status Code: (429|50[0234])\b|AWS(ServiceThrottled|ServiceIO|Status500)Exception"
    r"|ApiCall(Attempt)?TimeoutException|SlowDown|Slow Down|Server ?Busy|Service ?Unavailable"
)
# of local files, and of any in a pattern
COLON = re.compile(r"Relative path in absolute URI: [.]?(.+?)(?:[.]crc)?$", re.MULTILINE)


class RecsparkError(Exception):
    """Base of all errors that a user can fix; a job prints it as one line and ends with `exit_code`."""

    exit_code = 2


class ConfigError(RecsparkError):
    """The YAML file, a --set override or the installed software is not as expected."""


class SchemaError(RecsparkError):
    """A column is missing, misspelt or of the wrong type."""


class DataError(RecsparkError):
    """The data was readable but cannot be used: empty, out of range, or counts that do not add up."""


class TrainingError(RecsparkError):
    """A training diverged, or one of its processes died."""

    exit_code = CRASH


class PublishError(RecsparkError):
    """Tonight's lists failed a check; readers keep the previous night's."""

    exit_code = HELD


class BusyError(RecsparkError):
    """Another run has the warehouse or the catalog, or has taken it over."""

    exit_code = BUSY


def described(error: BaseException) -> tuple[str, int]:
    """(one line, exit code) of an exception.

    A RecsparkError that a Spark worker raised arrives as text inside another exception, and is still the user's to fix.
    """
    if isinstance(error, RecsparkError):
        return str(error), error.exit_code
    text = str(error)
    found = WORKER_ERROR.findall(text)
    if found:
        kind, message = found[-1]
        return message.strip(), int(globals()[kind].exit_code)
    differing = differing_file(text)  # a task found it in the middle of a stage
    if differing is not None:
        return differing, RecsparkError.exit_code
    lines = [*JAVA_CAUSE.findall(text)[-1:], *filter(None, map(str.strip, text.splitlines())), ""]
    what = f"{type(error).__name__}: {lines[0]}"
    return (f"{what}; try again", PASSING) if is_passing(error, lines[0]) else (what, CRASH)


def is_passing(error: BaseException, root: str = "") -> bool:
    """Is this, or what it came from, a fault of the network or of a storage that may be gone at the next try? `root`:
    the line of its cause, which is Java's in an error of Spark."""
    chain = list(_chain(error))
    if any(type(one).__module__.startswith("py4j") and type(one).__name__ != "Py4JJavaError" for one in chain):
        return False  # Java has died: what is refused is the connection to it
    return PASSING_JAVA.search(root) is not None or any(map(_is_fault_of_network, chain))


def _is_fault_of_network(error: BaseException) -> bool:
    response = getattr(error, "response", None)  # of botocore: a dictionary
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(response, dict) else None
    if status in PASSING_STATUS:
        return True
    if isinstance(error, socket.gaierror):
        return error.errno == socket.EAI_AGAIN
    if isinstance(error, OSError) and error.errno in PASSING_ERRNO:
        return True
    return isinstance(error, ConnectionError | TimeoutError) and not isinstance(error, BrokenPipeError)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what caused it, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def differing_file(text: str) -> str | None:
    """One line, if Spark's message is about a file that is damaged, or whose columns are not those of the first one."""
    header = HEADER.search(text)
    names = header[1].lower().split(", ") if header else []
    twice = next((name for name in names if names.count(name) > 1), None)
    if header is not None and twice is not None:
        return f"{header[2]} has two columns named {twice} (capital letters do not count); rename one of them"
    found = DIFFERING.search(text)
    if found is not None:
        what = " ".join(found[0].split())[:400]
        return f"{what}; write the files alike, or name those that belong together in `paths`"
    colon = COLON.search(text)
    if colon is not None:
        return f"the name {colon[1]} has a colon, which Hadoop does not read here; rename the file"
    damaged = DAMAGED.search(text)
    if damaged is not None:
        what = f"{damaged['file']} is damaged, cut off or of another format ({damaged['why']})"
        return f"{' '.join(what.split())}; deliver it again, or take it out of `paths`"
    return None
