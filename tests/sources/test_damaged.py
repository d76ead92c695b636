"""Damaged input of every kind: each raw row becomes what it must be, and a source that cannot be read is one line.

The rows are those of the benchmark `bad_rows`, fewer of them; the sources are public reports about comparable systems.
"""

import gzip
import json
import random
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from benchmarks.night import bad_rows
from benchmarks.night.damaged_files import WRITERS
from benchmarks.night.damages import EXPRESSIONS, TEXTS, TYPED, Truth, draw, good
from recspark import cli
from recspark.config.schema import Config
from recspark.config.sources import InteractionSource
from recspark.sources import events, raw
from recspark.sources.users import eligible_users
from recspark.stages.interactions import building
from recspark.tables.interactions import Counts

HEADER = "page,user,item,at,action,amount,n\n"
ROW = "shop,u1,i1,2024-01-05 10:00:00,buy,2.5,1\n"
OBJECT = {"page": "shop", "user": "u1", "item": "i1", "at": "2024-01-05", "action": "buy", "amount": 2.5, "n": 1}


@pytest.mark.parametrize("kind", ("csv", "json", "parquet of texts", "parquet"))
def test_every_damaged_row_becomes_what_it_must_be(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    """Each damage once or more, in a few hundred rows."""
    truth, faults = bad_rows.draw(spark, tmp_path, kind, 0, seed=1)
    assert faults == []
    assert truth.raw > len(TYPED if kind == "parquet" else TEXTS) and len(truth.reasons) >= 12


def test_the_benchmark_notices_a_row_that_is_lost_or_changed() -> None:
    """So that `wrong: 0` means something."""
    rows = draw(random.Random(1), 0)
    outcomes = {row.outcome for row in rows}
    assert len(rows) == len(TEXTS) and {"accepted", "later", "reserved scenario", "unreadable event"} <= outcomes
    truth = Truth()
    truth.add("accepted", {**good(1, random.Random(1)), "amount": 1.0}, None)
    truth.add("null user_id", {}, "note 7")
    found = Counts(raw=2, accepted=2, merged=0, duplicates=0, later=0, rejected={"null item_id": 1})
    counts = "+ 0 merged + 1 rejected + 0 duplicates + 0 later"
    assert bad_rows.count_faults(found, truth) == [
        f"counts: 2 raw = 2 accepted {counts}; expected 2 raw = 1 accepted {counts}",
        "null item_id: 1 rejected, expected 0",
        "null user_id: 0 rejected, expected 1",
    ]


@pytest.mark.parametrize("kind", WRITERS)
def test_draws_are_seeded(tmp_path: Path, kind: str) -> None:
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        found.append((WRITERS[kind](folder, 0, random.Random(3))[1], sorted(p.read_bytes() for p in folder.iterdir())))
    assert found[0] == found[1]


# -- public reports ---------------------------------------------------------------------------------------------------


def source(path: Path, kind: str = "csv", **changes: Any) -> InteractionSource:
    options = {"header": "true"} if kind == "csv" else {}
    return InteractionSource(format=kind, paths=(str(path),), **{"options": options, **EXPRESSIONS, **changes})


def read(spark: SparkSession, one: InteractionSource) -> tuple[dict[str, Any], dict[str, int]]:
    """({user: its row}, reasons of rejection)."""
    with building(raw.read(spark, one, events.SECTION), one, bad_rows.RUN_DATE) as built:
        return {row.user_id: row for row in built.accepted.collect()}, built.counts.rejected


def line_of(spark: SparkSession, one: InteractionSource) -> str:
    """The one line that a run would end with; its exit code is 2."""
    with pytest.raises(Exception) as raised:
        read(spark, one)
    line, code = cli.cause(raised.value)
    assert code == 2 and "\n" not in line
    return line


def test_a_gzip_file_that_is_cut_off(spark: SparkSession, tmp_path: Path) -> None:
    """pingcap/tidb#68065: taken for an empty file. Also a Parquet file and one whose bytes are others."""
    whole = gzip.compress((HEADER + "".join(ROW.replace("u1", f"u{n}") for n in range(5000))).encode())
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert "a.csv.gz is damaged, cut off or of another format (EOFException)" in line_of(spark, source(tmp_path))
    (tmp_path / "a.csv.gz").write_bytes(HEADER.encode())
    assert "another format (not a gzip file); deliver it again" in line_of(spark, source(tmp_path))


def test_a_damaged_parquet_file_beside_a_good_one(spark: SparkSession, tmp_path: Path) -> None:
    """The other files of the folder were read already when it is found."""
    pd.DataFrame([OBJECT]).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-20])
    assert "b.parquet is damaged, cut off or of another format" in line_of(spark, source(tmp_path, "parquet"))


@pytest.mark.parametrize("header", (HEADER.replace("n\n", "n,more\n"), HEADER.replace(",n\n", "\n")))
def test_another_number_of_columns_in_a_second_file(spark: SparkSession, tmp_path: Path, header: str) -> None:
    """databricks/spark-csv#401: the columns of a CSV file grow."""
    (tmp_path / "a.csv").write_text(HEADER + ROW)
    (tmp_path / "b.csv").write_text(header + ROW)
    line = line_of(spark, source(tmp_path))
    assert "Number of column in CSV header" in line and ".csv; write the files alike" in line


@pytest.mark.parametrize("kind", ("csv", "json", "parquet"))
def test_two_columns_of_one_name(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    """apache/spark#17758, apache/carbondata#682; also where only capital letters differ."""
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text(HEADER.replace("n\n", "User\n") + ROW)
    elif kind == "json":
        path.write_text(json.dumps({**OBJECT, "User": "u2"}) + "\n")
    else:
        pd.DataFrame([{**OBJECT, "User": "u2"}]).to_parquet(path)
    line = line_of(spark, source(path, kind))
    assert "two columns named user (capital letters do not count); rename one of them" in line


def test_nanoseconds_in_parquet(spark: SparkSession, tmp_path: Path) -> None:
    """ClickHouse/clickhouse-java#1161, apache/spark#53221: Illegal Parquet type."""
    at = pa.array([datetime(2024, 1, 5)], pa.timestamp("ns"))
    pq.write_table(pa.table({**{name: [OBJECT[name]] for name in OBJECT if name != "at"}, "at": at}), tmp_path / "a")
    line = line_of(spark, source(tmp_path / "a", "parquet"))
    assert "type INT64 (TIMESTAMP(NANOS,false)), which Spark does not read; write it" in line
    assert "coerce_timestamps='us'" in line


def test_a_unix_time_that_no_timestamp_can_hold(spark: SparkSession, tmp_path: Path) -> None:
    """Breaka84/Spooq#36, apache/spark#56906: `long overflow` ends the job, for one row."""
    rows = "".join(ROW.replace("u1", f"u{n}").replace("2024-01-05 10:00:00", n) for n in ("1704067200", "1" + "0" * 18))
    (tmp_path / "a.csv").write_text(HEADER + rows + ROW.replace("2024-01-05 10:00:00", ""))
    seconds = "timestamp_seconds(CAST(at AS BIGINT)) AS at  -- with words about it"
    for sql in (seconds, "CAST(timestamp_seconds(CAST(at AS BIGINT)) AS TIMESTAMP_NTZ)"):
        accepted, rejected = read(spark, source(tmp_path, event_time=sql))
        assert {str(row.event_time) for row in accepted.values()} == {"2024-01-01 00:00:00"}
        assert rejected == {"null event_time": 1, "unparsable event_time": 1}


def test_a_header_in_the_middle_and_a_mark_of_the_byte_order(spark: SparkSession, tmp_path: Path) -> None:
    """whitfin/s3-concat#3, melihbirim/csvql#103: files that were put together."""
    text = HEADER + ROW + HEADER + ROW.replace("u1", "u2")
    (tmp_path / "a.csv").write_text("\ufeff" + text + "\ufeff" + ROW.replace("u1", "u3"))
    accepted, rejected = read(spark, source(tmp_path))
    assert {user: row.scenario for user, row in accepted.items()} == {"u1": "shop", "u2": "shop", "u3": "shop"}
    assert rejected == {"unparsable event_time": 1}


def test_ids_that_others_take_for_something_else(spark: SparkSession, tmp_path: Path) -> None:
    """wireservice/csvkit#806: NA is Namibia; sisinflab/Ducho#2: 0108775015; langwatch/langwatch#6982: above 2^53."""
    ids = ("NA", "0108775015", "9007199254740993", "1e5", "true", "None")
    (tmp_path / "a.csv").write_text(HEADER + "".join(ROW.replace("u1", one) for one in ids))
    assert set(read(spark, source(tmp_path / "a.csv"))[0]) == set(ids)
    (tmp_path / "a.json").write_text("".join(json.dumps({**OBJECT, "user": one}) + "\n" for one in (2**53 + 1, 2**64)))
    assert set(read(spark, source(tmp_path / "a.json", "json"))[0]) == {str(2**53 + 1), str(2**64)}
    (tmp_path / "b.json").write_text("".join(json.dumps({**OBJECT, "user": one}) + "\n" for one in (2**53 + 1, 1.5)))
    assert "`user` is of type double" in line_of(spark, source(tmp_path / "b.json", "json"))


def test_numbers_that_only_java_reads_and_hours_without_a_day(spark: SparkSession, tmp_path: Path) -> None:
    """facebookincubator/velox#15533: 5d is 5.0; NVIDIA/cudf-spark-jni#3348: 10:00:00 is that hour of today;
    RUCAIBox/RecBole#2125: a dash for a price ends the load."""
    odd = (("2.5", "5d"), ("2.5", "—"), ("2024-01-05 10:00:00", "10:00:00"))
    (tmp_path / "a.csv").write_text(HEADER + ROW + "".join(ROW.replace(*one) for one in odd))
    assert read(spark, source(tmp_path))[1] == {"unparsable event_time": 1, "unparsable value": 2}


def test_a_blank_is_null_in_every_format(spark: SparkSession, tmp_path: Path) -> None:
    rows = [{**OBJECT, "amount": "  "}, {**OBJECT, "user": "u2", "amount": ""}, {**OBJECT, "user": "u3", "at": ""}]
    (tmp_path / "a.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    accepted, rejected = read(spark, source(tmp_path, "json"))
    assert {user: row.value for user, row in accepted.items()} == {"u1": None, "u2": None}
    assert rejected == {"null event_time": 1}


def test_a_file_that_is_no_text(spark: SparkSession, tmp_path: Path) -> None:
    """adaltas/node-csv-parse#250: UTF-16; also gzip without .gz, and Parquet among CSV."""
    for number, data in enumerate(
        (HEADER.encode("utf-16"), gzip.compress((HEADER + ROW).encode()), b"PAR1\x15\x04\x15\xff,")
    ):
        (tmp_path / f"{number}.csv").write_bytes(data)
        assert "is not text in UTF-8; check `format`" in line_of(spark, source(tmp_path / f"{number}.csv"))
    (tmp_path / "empty.csv").write_bytes(b"")
    assert "empty.csv is empty (no line in it)" in line_of(spark, source(tmp_path / "empty.csv"))


def test_a_column_named_as_spark_names_bad_rows(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER.replace("n\n", "_corrupt_record\n") + ROW)
    assert set(read(spark, source(tmp_path / "a.csv", context={}))[0]) == {"u1"}
    pd.DataFrame([{**OBJECT, "_corrupt_record": "x"}]).to_parquet(tmp_path / "a.parquet")
    assert set(read(spark, source(tmp_path / "a.parquet", "parquet"))[0]) == {"u1"}


def test_damaged_rows_of_given_users_are_left_out(spark: SparkSession, tmp_path: Path) -> None:
    """Of another width, not UTF-8, blank."""
    (tmp_path / "a.csv").write_bytes(b"page,user\nshop,u1\nshop\nshop,u2,more\nshop,M\xfcller\nshop,\xc2\xa0\n")
    given = {"format": "csv", "paths": [str(tmp_path)], "options": {"header": "true"}}
    users = {**given, "scenario": "page", "user_id": "user"}
    config = Config.model_validate(
        {"warehouse": "x", "source": {"interactions": {**given, **EXPRESSIONS}, "users": users}}
    )
    store = SimpleNamespace(spark=spark)
    assert [tuple(row) for row in eligible_users(store, config).collect()] == [("shop", "u1")]


def test_an_empty_path_is_not_the_working_directory() -> None:
    with pytest.raises(ValueError, match="an empty path would be the working directory"):
        InteractionSource(format="csv", paths=(" ",), **EXPRESSIONS)


def test_sums_stay_in_the_range_of_labels(spark: SparkSession, tmp_path: Path) -> None:
    """Two values of 3e38 are finite as float32, their sum is not."""
    huge = "".join(ROW.replace("2.5", value) for value in ("3e38", "2.9e38"))
    (tmp_path / "a.csv").write_text(HEADER + huge + ROW.replace("u1", "u2").replace("2.5", "1e30"))
    accepted, rejected = read(spark, source(tmp_path))
    assert accepted["u2"].value == 1e30 and rejected == {"out of range value": 2}
