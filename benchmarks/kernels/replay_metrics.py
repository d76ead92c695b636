"""RePlay's Spark metrics, called by metrics.py; runs in RePlay's environment and therefore imports nothing of recspark.

    python benchmarks/kernels/replay_metrics.py FOLDER MASTER "1,5,10,20"

RePlay is used as is best for it: inputs cached and counted before the clock starts, all metrics in one OfflineMetrics,
which joins lists and truth once and caches that. It is warmed up and has a touched heap, as ours.
The last line is JSON with seconds and values.
"""

import json
import os
import sys
import time

os.environ.setdefault("PYSPARK_PYTHON", sys.executable)

from pyspark.sql import SparkSession
from replay.metrics import MAP, MRR, NDCG, HitRate, OfflineMetrics, Precision, Recall

NAMES = {
    "HitRate": "hit_rate",
    "Precision": "precision",
    "Recall": "recall",
    "NDCG": "ndcg",
    "MAP": "map",
    "MRR": "mrr",
}
WARM = 5_000  # users


def main(folder: str, master: str, cutoffs: list[int]) -> None:
    settings = {
        "spark.driver.memory": "10g",
        "spark.driver.extraJavaOptions": "-XX:InitialHeapSize=10g -XX:MinHeapSize=10g -XX:+AlwaysPreTouch",
        "spark.sql.shuffle.partitions": "8",
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.master(master).appName("replay")
    for name, value in settings.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    tables = [spark.read.parquet(f"{folder}/{name}").cache() for name in ("recommendations", "truth")]
    for table in tables:
        table.count()
    every = OfflineMetrics(
        [metric(cutoffs) for metric in (HitRate, Precision, Recall, NDCG, MAP, MRR)],
        query_column="user_id", item_column="item_id", rating_column="rating",
    )  # fmt: skip
    every(*(table.where(table.user_id < WARM) for table in tables))
    began = time.monotonic()
    found = every(*tables)
    seconds = time.monotonic() - began
    values = {f"{NAMES[name.split('@')[0]]}@{name.split('@')[1]}": value for name, value in found.items()}
    print(json.dumps({"seconds": seconds, "values": values}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], [int(k) for k in sys.argv[3].split(",")])
