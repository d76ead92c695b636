"""Where the checkout's files lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONF = str(ROOT / "conf" / "online_retail.yaml")
DATA = ROOT.parent / "shared" / "data"  # research data beside the checkout; tests that need it skip without
