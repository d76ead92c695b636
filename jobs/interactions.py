"""uv run python jobs/interactions.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Raw events -> interactions, rejected_events and the user and scenario indices.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("interactions")
