"""uv run python jobs/item_embeddings.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

The text of new and changed items -> item_embeddings, on GPU where there is one.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("item_embeddings")
