"""uv run python jobs/model_metrics.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Models on the newest closed window, and earlier lists on what came -> model_metrics and the gate.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("model_metrics")
