"""uv run python jobs/training_examples.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Candidates of past dates, and what users did afterwards -> training_examples.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("training_examples")
