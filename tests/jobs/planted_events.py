"""A few events of a shop in a CSV file, and a configuration for them."""

from datetime import datetime, timedelta
from pathlib import Path

YAML = """
warehouse: {folder}/warehouse
run_date: 2024-03-01
source:
  interactions: {{format: csv, paths: ["{folder}/events.csv"], options: {{header: "true"}}, scenario: shop,
    user_id: who, item_id: what, event_time: at}}
"""


def write(folder: Path, more: str = "") -> None:
    """events.csv and shop.yaml, with further lines."""
    start = datetime(2024, 1, 1)
    rows = [f"{'de' if n % 2 else 'fr'},u{n % 20},i{n % 12},{start + timedelta(hours=n)}" for n in range(400)]
    (folder / "events.csv").write_text("\n".join(("shop,who,what,at", *rows)) + "\n")
    (folder / "shop.yaml").write_text(YAML.format(folder=folder) + more)
