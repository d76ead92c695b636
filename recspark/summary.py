"""What a stage reports when it is done."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Summary:
    """One line of the table that ends every job."""

    stage: str
    rows_in: int = 0
    rows_out: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # reason -> rows
    skipped: bool = False  # the fingerprint had not changed
    note: str = ""
    version: int | None = None  # of the table that was written
