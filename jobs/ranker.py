"""uv run python jobs/ranker.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Training examples -> the rankers: torch, by TorchDistributor, and gradient boosting, by LightGBM.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("ranker")
