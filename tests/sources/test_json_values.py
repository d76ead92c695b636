"""JSON after the first value of a line, or of a file, is told: Spark reads none of it."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from recspark.config.sources import Source
from recspark.errors import DataError
from recspark.sources import raw
from recspark.sources.json_values import has_more, is_whole

LINES = '{"user": "a"}\n{"user": "b"}\n'
WHOLE = {"multiLine": "true"}


@pytest.mark.parametrize(
    "text,more",
    (
        ('{"a": 1}', False),
        (' {"a": 1} \n', False),
        ('{"a": 1}{"a": 2}', True),
        ('[{"a": 1}]\n[]', True),
        ('{"a": "x}{y"}', False),
        ('{"a": 1', False),  # broken: the row is rejected
        ('\ufeff{"a": 1}\n{"a": 2}', True),
    ),
)
def test_what_follows_the_first_value(text: str, more: bool) -> None:
    assert has_more(text) == more


def test_names_of_options_have_no_case() -> None:
    assert is_whole({"multiline": "TRUE"}) and not is_whole({}) and not is_whole({"multiLine": "false"})


@pytest.mark.parametrize(
    "text,options,message",
    (
        (LINES, WHOLE, r"a\.json has more than one JSON value, .* remove multiLine from `options`"),
        ('[{"user": "a"}]\n[{"user": "b"}]\n', WHOLE, "has more than one JSON value, .* write one list a file"),
        ('{"user": "a"}{"user": "b"}\n{"user": "c"}\n', {}, r"a line of .*a\.json has .* write one object a line"),
        ('[{"user": "a"}, {"user": "b', WHOLE, "is not one list of JSON objects, or is cut off, and none of its rows"),
        ('[{"user": "a"}, 5]', WHOLE, "is not one list of JSON objects"),
    ),
)
def test_files_of_which_spark_reads_a_part(
    spark: SparkSession, tmp_path: Path, text: str, options: dict[str, str], message: str
) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        raw.read(spark, Source(format="json", paths=(f"{tmp_path}/a.json",), options=options), "source.x")


def test_texts_that_only_look_so_are_read(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"user": "{a} {b}"}\n{"user": "c"}\n')
    assert raw.read(spark, Source(format="json", paths=(f"{tmp_path}/a.json",)), "source.x").count() == 2
    (tmp_path / "b.json").write_text(f"[{LINES.strip().replace(chr(10), ',')}]")
    whole = Source(format="json", paths=(f"{tmp_path}/b.json",), options=WHOLE)
    assert raw.read(spark, whole, "source.x").count() == 2
