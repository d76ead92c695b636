"""uv run python jobs/item_facts.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Items -> item_facts: what their attributes and texts say, as (item, relation, entity).
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("item_facts")
