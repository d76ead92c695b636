"""uv run python jobs/maintenance.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

OPTIMIZE and VACUUM of every table; deletes tables' rows and model folders that are older than the retention.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("maintenance")
