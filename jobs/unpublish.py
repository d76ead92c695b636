"""uv run python jobs/unpublish.py --config conf/online_retail.yaml --run-date D [--set dotted.key=value ...]

Take the lists of a night back in one commit: readers of the newest lists see the night before.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("unpublish")
