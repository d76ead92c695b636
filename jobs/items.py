"""uv run python jobs/items.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Raw catalogue and interactions -> items and item_index.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("items")
