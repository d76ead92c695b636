"""uv run python jobs/interactions.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Raw events -> interactions, rejected_events, user_index and scenario_index.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("interactions")
