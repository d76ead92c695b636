"""The result tables without Spark: DuckDB and delta-rs, in an environment of their own."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

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
