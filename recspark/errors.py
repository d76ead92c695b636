"""What can go wrong, for people: each message says where, what was found, what was expected and how to mend it."""


class RecsparkError(Exception):
    """Root of all errors that a user can mend; a job turns it into one line and `exit_code`."""

    exit_code = 2


class ConfigError(RecsparkError):
    """The YAML file, a --set override or the installed software does not fit."""


class SchemaError(RecsparkError):
    """A column is missing, misspelt or of the wrong type."""


class DataError(RecsparkError):
    """The data was readable but cannot be used: empty, out of range, or counts that do not add up."""


class TrainingError(RecsparkError):
    """A training diverged or lost a process."""

    exit_code = 1


class PublishError(RecsparkError):
    """Tonight's list failed a check; readers keep the previous night."""

    exit_code = 3
