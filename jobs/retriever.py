"""uv run python jobs/retriever.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Interactions and item embeddings -> the retrievers of tonight and of past dates.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("retriever")
