"""The product and its bare loops must do the same work, else their ratio means nothing."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks.kernels import bare_loop, gpu
from recspark.models.layers import RowNoise
from recspark.models.rankers import network
from recspark.training.ranking import loop
from tests.paths import ROOT

TINY = gpu.Sizes(texts=12, batch=16, items=300, users=40, factors=8, square=64)
CPU = torch.device("cpu")


def test_the_bare_loop_leaves_the_weights_of_the_product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise and clipping the same batches must leave the same weights."""
    monkeypatch.setattr(loop, "MAX_GRADIENT_NORM", 1e9)
    monkeypatch.setattr(RowNoise, "keep", lambda self, rows, width, drop: torch.ones(rows, width, dtype=torch.bool))
    feed = gpu.Planted(TINY.batch)
    spec = replace(gpu._network().spec, dropout=0.0)
    ours, bare = (network.build(spec, 0) for _ in range(2))
    for model in (ours, bare):
        model.fit(feed._made[0].floats, feed._made[0].ints[:, 0], feed._made[0].floats[:, :1])
    settings = loop.LoopSettings(0, 1e-3, 1e-5, 1, 1, (1.0,), 10**9)
    loop.train(ours, feed, feed.prepare, settings, str(tmp_path), report=lambda line: None, device=CPU)
    batches = [feed.prepare(batch) for batch in islice(feed.batches(0), 4)]
    ready = [(inputs, target, torch.ones(TINY.batch)) for inputs, target in batches]
    assert bare_loop.seconds(bare, ready, gpu.STEPS, learning_rate=1e-3, weight_decay=1e-5) > 0
    for (name, expected), found in zip(ours.named_parameters(), bare.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6, msg=name)
        if name.endswith("weight"):
            assert not torch.equal(found, dict(network.build(spec, 0).named_parameters())[name]), name


@pytest.mark.parametrize("part", [gpu.embed, gpu.train, gpu.score, gpu.best])
def test_every_part_gives_rates(part: Callable[..., dict[str, float]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ROUNDS", 1)
    monkeypatch.setattr(gpu, "STEPS", 4)
    figures = part(str(ROOT / "data" / "online-retail"), TINY, CPU)
    assert {"rows_per_second", "of_bare", "flops"} == set(figures) and min(figures.values()) > 0
