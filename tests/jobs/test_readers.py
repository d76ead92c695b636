"""The result tables without Spark: DuckDB and delta-rs, in an environment of their own."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.paths import ROOT

SCRIPT = """
import sys
import duckdb
from deltalake import DeltaTable

table = DeltaTable(sys.argv[1] + "/recommendations")
rows = table.to_pyarrow_table()
newest = duckdb.sql(
    "SELECT scenario, count(DISTINCT user_id) AS users, count(*) AS n FROM rows "
    "WHERE run_date = (SELECT max(run_date) FROM rows) GROUP BY scenario"
).fetchall()
assert newest and all(n == 10 * users for _, users, n in newest), newest
print(rows.num_rows, ",".join(rows.column_names))
"""


def test_duckdb_and_delta_rs_read_the_lists(spark: Any, published_night: Any) -> None:
    warehouse, _ = published_night
    uv = shutil.which("uv")
    assert uv, "uv runs the tests, so it is on the PATH"
    packages = [part for name in ("deltalake", "duckdb", "pyarrow") for part in ("--with", name)]
    command = [uv, "run", "--isolated", "--no-project", *packages, "python", "-c", SCRIPT, str(warehouse)]
    done = subprocess.run(command, cwd=Path("/"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    count, columns = done.stdout.split()
    assert int(count) == spark.read.format("delta").load(f"{warehouse}/recommendations").count()
    assert columns == "run_date,scenario,user_id,rank,item_id,score,source,model,reason,run_id"


def test_every_query_of_the_readme_runs_and_finds_rows(spark: Any, published_night: Any) -> None:
    """On a night of three countries: user 12583 is French, and all three are poor."""
    warehouse, _ = published_night
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("```sql\n")[1].split("```")[0]
    lines = [line for line in block.splitlines() if not line.startswith("--")]
    queries = [query for query in "\n".join(lines).split(";") if query.strip()]
    assert len(queries) == 5
    for noun in ("recommendations", "model_metrics", "rejected_events"):
        spark.read.format("delta").load(f"{warehouse}/{noun}").createOrReplaceTempView(noun)
    found = [spark.sql(query).count() for query in queries]
    assert all(found), dict(zip(queries, found, strict=True))
