# Databricks notebook source
# MAGIC %md
# MAGIC # recspark: last night's lists
# MAGIC Reads the result tables; needs neither torch nor a model. Runs on Databricks, and on any machine by
# MAGIC `uv run python notebooks/quickstart.py warehouse/online_retail`.

# COMMAND ----------

import sys

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark.session import get_session

spark, _ = get_session()
WAREHOUSE = sys.argv[1] if len(sys.argv) > 1 else "warehouse/online_retail"  # on Databricks: a volume's folder


def table(noun: str) -> DataFrame:
    """A result table of the warehouse. With a catalog use spark.table(f"main.recs.{noun}") instead."""
    return spark.read.format("delta").load(f"{WAREHOUSE}/{noun}")


# COMMAND ----------

# MAGIC %md ## The newest published night

# COMMAND ----------

run_date = table("recommendations").agg(F.max("run_date")).first()[0]
lists = table("recommendations").where(F.col("run_date") == F.lit(run_date))
lists.groupBy("scenario").agg(
    F.countDistinct("user_id").alias("users"), F.count("*").alias("rows"), F.first("model").alias("model")
).orderBy(F.desc("users")).show(10, truncate=False)

# COMMAND ----------

# MAGIC %md ## The lists of one user, in all scenarios

# COMMAND ----------

user_id = lists.where("user_id <> '__default__'").agg(F.min("user_id")).first()[0]
texts = table("items").select("item_id", "text")
one = lists.where(F.col("user_id") == user_id).join(texts, on="item_id", how="left")
one.select("scenario", "rank", "item_id", "text", "score", "source", "reason").orderBy("scenario", "rank").show(
    50, False
)

# COMMAND ----------

# MAGIC %md ## Is the list better than simple ones? NDCG@10 on the newest closed window, with 95 % intervals

# COMMAND ----------

metrics = table("model_metrics").where(
    (F.col("run_date") == F.lit(run_date)) & (F.col("metric") == "ndcg@10") & (F.col("slice") == "all")
)
rows = metrics.where("scenario = '__all__'").orderBy("value").toPandas()
print(rows[["model", "value", "lower", "upper", "num_users"]].to_string(index=False))

# COMMAND ----------

import plotly.express as px  # noqa: E402

figure = px.bar(
    rows,
    x="value",
    y="model",
    orientation="h",
    error_x=rows["upper"] - rows["value"],
    error_x_minus=rows["value"] - rows["lower"],
    labels={"value": "NDCG@10", "model": ""},
    title=f"Night of {run_date}",
)
if "displayHTML" in globals():
    displayHTML(figure.to_html(include_plotlyjs="cdn"))  # noqa: F821
else:
    figure.write_html(f"{WAREHOUSE}/quickstart.html")
    print(f"chart: {WAREHOUSE}/quickstart.html")
