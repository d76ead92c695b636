"""Nightly multi-scenario recommendations on Spark."""


def __getattr__(name: str) -> str:
    """`recspark.__version__`, read when asked for: workers import this file too."""
    if name == "__version__":
        from importlib.metadata import version

        return version("recspark")
    raise AttributeError(f"module recspark has no attribute {name}")
