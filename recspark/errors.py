"""Errors for people: each message names where it happened, what was found, what was expected and how to fix it."""

import re

# of Spark: another type or another header in one of the files
DIFFERING = re.compile(
    r"(Encountered error while reading file .*?actual Parquet type:? \w+)"
    r"|(CSV header does not conform to the schema.*?CSV file: \S+)",
    re.DOTALL,
)


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

    exit_code = 1


class PublishError(RecsparkError):
    """Tonight's lists failed a check; readers keep the previous night's."""

    exit_code = 3


def differing_file(text: str) -> str | None:
    """One line, if Spark's message is about a file whose columns are not those of the first one."""
    found = DIFFERING.search(text)
    if found is None:
        return None
    return f"{' '.join(found[0].split())[:400]}; write the files alike, or name those that belong together in `paths`"
