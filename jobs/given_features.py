"""uv run python jobs/given_features.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

source.users, source.items -> user_features, item_features, and models/given_features as of tonight and past dates.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("given_features")
