"""uv run python jobs/model_metrics.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Candidates, models and earlier lists, on what users did -> model_metrics, and the gate's choice of a model.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("model_metrics")
