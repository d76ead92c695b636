"""uv run python jobs/text_adapter.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Items with which a user interacted soon after each other -> an adapter of the text encoder (section text_adapter).
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("text_adapter")
