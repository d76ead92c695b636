"""uv run python jobs/candidates.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Retrievers -> candidates: the best items of each, per user and scenario, with their ranking features.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("candidates")
