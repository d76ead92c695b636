"""uv run python jobs/item_facts.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Items -> item_facts, (item, relation, entity): facts from their attributes and texts.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("item_facts")
