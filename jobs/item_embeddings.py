"""uv run python jobs/item_embeddings.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Texts and media of new and changed items -> item_embeddings, their vectors; on a GPU if there is one.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("item_embeddings")
