"""uv run python jobs/recommendations.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Candidates, rankers and the gate -> recommendations: exactly K rows for every eligible user, in one commit.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("recommendations")
