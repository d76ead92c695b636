"""Two configurations of one catalog meet in the folder of its schema."""

from pathlib import Path
from typing import Any

import pytest

from recspark.config.schema import Config
from recspark.errors import ConfigError
from recspark.warehouse import catalog, lease
from tests.nights import RunNight, only_countries


def test_the_folder_of_a_schema(spark: Any, tmp_path: Path) -> None:
    spark.sql(f"CREATE SCHEMA met LOCATION '{tmp_path}/a folder/met.db'")
    try:
        found = catalog.place(spark, "spark_catalog.met")
        assert found == f"{tmp_path}/a folder/met.db"
        with lease.hold(str(tmp_path / "one"), "first", catalog=found):
            assert isinstance(lease.acquire(str(catalog.place(spark, "met")), "second"), lease.Lease)
    finally:
        spark.sql("DROP SCHEMA met CASCADE")


def test_two_configurations_of_one_catalog_do_not_write_at_once(
    spark: Any, run_night: RunNight, tmp_path: Path
) -> None:
    """Another warehouse, the same catalog: refused while the first holds it, and nothing is written."""
    spark.sql(f"CREATE SCHEMA busy LOCATION '{tmp_path}/busy.db'")
    try:
        settings = ("catalog=spark_catalog.busy", *only_countries("Country = 'Norway'"))
        with lease.hold(str(tmp_path / "first"), "the-first", catalog=catalog.place(spark, "spark_catalog.busy")):
            refused = run_night(tmp_path / "second", *settings, only="interactions")
        assert refused.code == 4
        last = refused.stderr.splitlines()[-1]
        assert last.startswith(f"error: catalog at {tmp_path}/busy.db is in use by run the-first (process ")
        assert spark.catalog.listTables("busy") == []
    finally:
        spark.sql("DROP SCHEMA busy CASCADE")


def test_a_schema_that_does_not_exist_is_one_line(spark: Any) -> None:
    with pytest.raises(ConfigError, match=r"catalog: spark_catalog.nosuch is not a schema .*; CREATE SCHEMA"):
        catalog.place(spark, "spark_catalog.nosuch")


def test_a_folder_that_cannot_be_written_is_said(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(catalog.log, "warning", lambda text, *values: lines.append(text % values))
    spark.sql(f"CREATE SCHEMA far LOCATION '{tmp_path}/far.db'")
    try:
        monkeypatch.setattr(catalog, "path_of", lambda location: "nothing://far")
        assert catalog.place(spark, "far") is None
    finally:
        spark.sql("DROP SCHEMA far CASCADE")
    assert len(lines) == 1 and "only runs of one warehouse are kept apart" in lines[0]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("file:/data/a%20b", "/data/a b"),
        ("file:///data/x.db", "/data/x.db"),
        ("dbfs:/user/x.db", "/dbfs/user/x.db"),
        ("s3://b/x.db", "s3://b/x.db"),
        ("", ""),
    ],
)
def test_paths_of_locations(location: str, expected: str) -> None:
    assert catalog.path_of(location) == expected


def test_a_configuration_says_whether_s3_is_in_it() -> None:
    source = {"format": "csv", "paths": ["x.csv"], "scenario": "s", "user_id": "u", "item_id": "i", "event_time": "t"}

    def config(warehouse: str, path: str) -> Config:
        return Config.model_validate({"warehouse": warehouse, "source": {"interactions": {**source, "paths": [path]}}})

    assert not config("/w/s3", "x.csv").is_on_s3
    assert config("s3://bucket/w", "x.csv").is_on_s3
    assert config("/w", "s3a://bucket/*.csv").is_on_s3
