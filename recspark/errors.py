"""Errors for people: each message names where it happened, what was found, what was expected and how to fix it."""


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
