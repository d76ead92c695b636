"""The bare loop makes the same vectors as the product; the recall of smaller vectors is measured on real texts."""

import json
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks import __main__ as board
from benchmarks.kernels import encode, int8
from tests.paths import ROOT

SHOP = str(ROOT / "data" / "online-retail")


@pytest.mark.slow
def test_both_modalities_run_to_their_end(spark: SparkSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Three pictures and two sounds, made here; equal vectors, and nothing is encoded twice."""
    import numpy as np
    from PIL import Image

    from tests.encoders import tiny

    for folder in ("movielens-1m/posters", "clothing-images/a", "spoken-digits", "environmental-sounds/b"):
        (tmp_path / folder).mkdir(parents=True)
    for seed, name in enumerate(("movielens-1m/posters/1.jpg", "clothing-images/a/2.jpg", "clothing-images/a/3.jpg")):
        Image.fromarray(tiny.picture(seed)).save(tmp_path / name)
    for hertz in (300, 500):
        (tmp_path / f"spoken-digits/{hertz}.wav").write_bytes(tiny.wav(tiny.tone(hertz, 0.5).astype(np.float64)))
    monkeypatch.setattr(encode, "in_a_process", lambda task: task())
    found = encode.run(str(tmp_path), 1, quick=True)
    assert {name: (one["items"], one["second_run_encodes"]) for name, one in found.items()} == {
        "image": (3, 0), "audio": (2, 0),
    }  # fmt: skip
    assert all(one["largest_difference"] < 1e-4 for one in found.values())
    with pytest.raises(FileNotFoundError, match="found none of"):
        encode.files(str(tmp_path / "nowhere"), "image", quick=True)


def test_recall_of_storages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(int8, "TEXTS", 50)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "int8", "--data", SHOP, "--quick"])
    board.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["float32"] == {"recall@10": 1.0, "bytes": 1536} and found["int8"]["bytes"] == 388
    assert 0.95 < found["int8"]["recall@10"] <= found["float16"]["recall@10"] <= 1.0
