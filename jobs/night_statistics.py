"""uv run python jobs/night_statistics.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Interactions and catalogue -> night_statistics, if they are like those of earlier nights; else exit code 3.
[--accept]
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("night_statistics")
