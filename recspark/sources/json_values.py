"""JSON of which Spark would read only a part, without a word: what follows the first value of a line or of a file."""

import json

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from recspark.errors import DataError

TWO = r"(?s)[}\]]\s*[{\[]"  # one value after another without a comma, or a text that looks so


def require_one_value(spark: SparkSession, paths: list[str], options: dict[str, str], where: str) -> None:
    """Raises DataError if a line has more than one value, or with `multiLine` a file."""
    whole = is_whole(options)
    texts = spark.read.text(paths, wholetext=whole, lineSep=_lower(options).get("linesep"))
    more = F.udf(has_more, "boolean")
    found = texts.where(F.col("value").rlike(TWO)).where(more("value")).select("_metadata.file_path").first()
    if found is None:
        return
    if whole:
        raise DataError(
            f"{where}: {found[0]} has more than one JSON value, of which Spark reads the first; for one object a line "
            "remove multiLine from `options`, else write one list a file"
        )
    raise DataError(
        f"{where}: a line of {found[0]} has more than one JSON value, of which Spark reads the first; "
        "write one object a line"
    )


def is_whole(options: dict[str, str]) -> bool:
    """Is a file read as one value?"""
    return _lower(options).get("multiline", "").lower() == "true"


def _lower(options: dict[str, str]) -> dict[str, str]:
    """Capital letters in names of options do not count for Spark."""
    return {name.lower(): value for name, value in options.items()}


def has_more(text: str) -> bool:
    """Does anything follow the first JSON value? Broken JSON has no value: such rows are rejected."""
    text = text.strip().removeprefix("\ufeff")
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return False
    return text[end:].strip() != ""
