"""uv run python jobs/maintenance.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

OPTIMIZE, VACUUM and retention of every table and model folder.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("maintenance")
