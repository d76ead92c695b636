"""Errors for people: each message names where it happened, what was found, what was expected and how to fix it."""

import re

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
CRASH, HELD = 1, 3  # exit codes
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
        return message.strip(), int(globals()[f"{kind}Error"].exit_code)
    differing = differing_file(text)  # a task found it in the middle of a stage
    if differing is not None:
        return differing, RecsparkError.exit_code
    lines = [*JAVA_CAUSE.findall(text)[-1:], *filter(None, map(str.strip, text.splitlines())), ""]
    return f"{type(error).__name__}: {lines[0]}", CRASH


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
