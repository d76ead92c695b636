"""uv run python jobs/time_scales.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

Events -> models/time_scales: label windows, and how fast popularity fades, where the YAML does not say it.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("time_scales")
