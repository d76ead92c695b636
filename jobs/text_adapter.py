"""uv run python jobs/text_adapter.py --config conf/online_retail.yaml [--run-date D] [--set dotted.key=value ...]

What users took soon after each other -> an adapter of the text encoder, if the section text_adapter is there.
"""

from recspark import cli

if __name__ == "__main__":
    cli.main("text_adapter")
