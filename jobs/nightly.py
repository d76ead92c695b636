"""uv run python jobs/nightly.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

All stages of a night, in order. A stage whose inputs have not changed is skipped, so a restart is the same command.
[--force] [--from STAGE] [--only STAGE] [--accept]
"""

from recspark import cli, pipeline

if __name__ == "__main__":
    cli.main(*pipeline.STAGES)
