"""The torch side alone, without Spark or Java: embed, train, score and top-K, on a GPU if there is one.

Each is timed as the product runs it and as a bare loop over tensors that are on the device already. `of_product`: the
rate of the model's multiplications divided by that of a bare float32 matrix product on this device. On a GPU every
result is compared with the CPU's.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from benchmarks.kernels import bare_loop
from recspark.encoders import text
from recspark.features import FEATURES
from recspark.models import topk, topk_torch
from recspark.models.layers import Inputs, look_up
from recspark.models.rankers import network
from recspark.models.rankers.spec import Spec
from recspark.training.feed.feed import Batch
from recspark.training.ranking import loop

SCENARIOS, LENGTH, CONTENT_DIM, STEPS = 30, 50, 384, 40
BARE_ROWS = 256  # texts in a batch of the bare loop, sorted by length
ROUNDS = 3  # the best counts


@dataclass(frozen=True)
class Sizes:
    texts: int = 20_000
    batch: int = 8192
    items: int = 50_000
    users: int = 20_000
    factors: int = 64
    square: int = 4096  # of the bare product


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """The texts are those of Online Retail; one run, `seeds` is not used."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    sizes = Sizes(200, 256, 1000, 500, 16, 512) if quick else Sizes()
    peak = _product_rate(sizes.square, device)
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "no GPU: CPU",
        "product_tflops": round(peak / 1e12, 3),
    }
    for name, part in (("embed", embed), ("train", train), ("score", score), ("topk", best)):
        figures = part(data, sizes, device)
        flops = figures.pop("flops")
        figures["of_product"] = flops / peak
        found[name] = {key: float(f"{value:.4g}") for key, value in figures.items()}
        print(f"{name:6s}", "  ".join(f"{key} {value}" for key, value in found[name].items()), flush=True)
    return found


def _seconds(task: Callable[[], object], device: torch.device) -> float:
    best_of = []
    for _ in range(1 + ROUNDS):  # the first warms up
        began = time.monotonic()
        task()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best_of.append(time.monotonic() - began)
    return min(best_of[1:])


def _product_rate(size: int, device: torch.device) -> float:
    """Multiplications and additions a second of a product of two square float32 matrices."""
    left, right = (torch.rand(size, size, device=device) for _ in range(2))
    return 2 * size**3 / _seconds(lambda: left @ right, device)


def embed(data: str, sizes: Sizes, device: torch.device) -> dict[str, float]:
    column = pq.read_table(Path(data) / "transactions.parquet", columns=["Description"])["Description"]
    distinct = column.drop_null().unique().to_pylist()
    texts = [f"{distinct[i % len(distinct)]} {distinct[i * 7 % len(distinct)]}" for i in range(sizes.texts)]
    encoder = text.load(device=str(device))
    vectors = encoder.encode(texts)
    ids = sorted(encoder.tokenizer(texts, truncation=True, max_length=encoder.max_tokens)["input_ids"], key=len)
    cuts = range(0, len(ids), BARE_ROWS)
    ready = [
        encoder.tokenizer.pad({"input_ids": ids[low : low + BARE_ROWS]}, return_tensors="pt").to(device) for low in cuts
    ]

    def bare() -> None:
        with torch.inference_mode():
            for inputs in ready:
                encoder.model(**inputs)

    config = encoder.model.config
    weights = config.num_hidden_layers * (4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size)
    tokens = sum(inputs["input_ids"].numel() for inputs in ready)
    seconds = _seconds(lambda: encoder.encode(texts), device)
    found = {
        "rows_per_second": len(texts) / seconds,
        "of_bare": _seconds(bare, device) / seconds,
        "flops": 2 * weights * tokens / seconds,
    }
    return found | _difference(device, lambda: (vectors, text.load(device="cpu").encode(texts[:500])))


def _difference(device: torch.device, both: Callable[[], tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The largest difference from the CPU's result; empty on a CPU."""
    if device.type == "cpu":
        return {}
    mine, expected = both()
    return {"differs_from_cpu": float(np.abs(mine[: len(expected)] - expected).max())}


def _network() -> network.Network:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(20_000, len(FEATURES))).astype(np.float32)
    spec = Spec(
        features=FEATURES, tasks=("click",), kinds=("binary",), num_items=4000, num_scenarios=SCENARIOS,
        num_missing=network.num_missing(dense), content_dim=CONTENT_DIM, embedding_dim=32, hidden=(128, 64),
        history_length=LENGTH, dropout=0.1, model="single",
    )  # fmt: skip
    made = network.build(spec, 0)
    made.fit(dense, np.arange(len(dense)) % SCENARIOS, np.ones((len(dense), 1), np.float32))
    return made


class Planted:
    """A feed of batches in memory; see loop.Batches."""

    num_steps = STEPS

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(1)
        self.content = rng.normal(size=(4000, CONTENT_DIM)).astype(np.float32)
        self._made = [
            Batch(
                np.column_stack([rng.integers(0, SCENARIOS, size), rng.integers(0, 4000, (size, 1 + LENGTH))]),
                rng.normal(size=(size, len(FEATURES))).astype(np.float32),
                np.ones(size, np.float32),
                size,
            )
            for _ in range(4)
        ]

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for step in range(start, STEPS):
            yield self._made[step % len(self._made)]

    def prepare(self, batch: Batch) -> tuple[Inputs, Tensor]:
        scenario, item, history = batch.ints[:, 0], batch.ints[:, 1], batch.ints[:, 2:]
        target = torch.from_numpy((batch.floats[:, :1] > 0).astype(np.float32))
        return look_up(batch.floats, scenario, item, history.astype(np.int32), self.content), target


def _linear_flops(model: nn.Module, rows: int) -> float:
    """Multiplications and additions of one tower for each of `rows`: the towers of `single` have equal sizes."""
    shapes = [p.shape for name, p in model.body.named_parameters() if p.dim() >= 2]
    return 2.0 * rows * sum(float(np.prod(shape[-2:])) for shape in shapes)


def train(data: str, sizes: Sizes, device: torch.device) -> dict[str, float]:
    feed, settings = Planted(sizes.batch), loop.LoopSettings(0, 1e-3, 1e-5, 1, 1, (1.0,), 10**9)

    def learnt(where: torch.device) -> tuple[float, network.Network]:
        model = _network()
        with tempfile.TemporaryDirectory() as folder:
            trained = loop.train(model, feed, feed.prepare, settings, folder, report=lambda line: None, device=where)
        return trained.seconds, model

    learnt(device)  # warms up
    seconds, model = learnt(device)
    other = _network().to(device)
    weights = torch.ones(sizes.batch, device=device)
    prepared = (feed.prepare(batch) for batch in islice(feed.batches(0), 4))
    ready = [(inputs.to(device), target.to(device), weights) for inputs, target in prepared]
    rows = STEPS * sizes.batch
    found = {
        "rows_per_second": rows / seconds,
        "of_bare": bare_loop.seconds(other, ready, STEPS, warm_up=STEPS) / seconds,
        "flops": 3 * _linear_flops(model, rows) / seconds,  # forward, and twice as much backward
    }

    def weights_of(trained: network.Network) -> np.ndarray:
        return torch.cat([p.detach().cpu().reshape(-1) for p in trained.body.parameters()]).numpy()

    return found | _difference(device, lambda: (weights_of(model), weights_of(learnt(torch.device("cpu"))[1])))


def score(data: str, sizes: Sizes, device: torch.device) -> dict[str, float]:
    feed, model = Planted(sizes.batch), _network().eval()
    here = copy.deepcopy(model).to(device)
    batches = list(feed.batches(0))
    ready = [feed.prepare(batch)[0].to(device) for batch in batches[:4]]

    @torch.inference_mode()
    def scored(prepared_here: bool) -> Tensor:
        for step, batch in enumerate(batches):
            inputs = feed.prepare(batch)[0].to(device) if prepared_here else ready[step % len(ready)]
            found = here(inputs)
        return found

    rows = STEPS * sizes.batch
    seconds = _seconds(lambda: scored(True), device)
    found = {
        "rows_per_second": rows / seconds,
        "of_bare": _seconds(lambda: scored(False), device) / seconds,
        "flops": _linear_flops(here, rows) / seconds,
    }
    with torch.inference_mode():
        return found | _difference(
            device, lambda: (scored(True).cpu().numpy(), model(feed.prepare(batches[-1])[0]).numpy())
        )


def best(data: str, sizes: Sizes, device: torch.device) -> dict[str, float]:
    rng = np.random.default_rng(0)
    queries, items = (rng.normal(size=(n, sizes.factors)).astype(np.float32) for n in (sizes.users, sizes.items))
    placed = [torch.from_numpy(side).to(device) for side in (queries, items)]

    def bare() -> None:
        for low in range(0, sizes.users, topk_torch.ROWS):
            placed[0][low : low + topk_torch.ROWS] @ placed[1].T

    seconds = _seconds(lambda: topk_torch.top_k(placed[0], placed[1], 100), device)
    found = {
        "rows_per_second": sizes.users / seconds,
        "of_bare": _seconds(bare, device) / seconds,
        "flops": 2.0 * sizes.users * sizes.items * sizes.factors / seconds,
    }

    def both() -> tuple[np.ndarray, np.ndarray]:
        some = topk_torch.top_k(placed[0][:500], placed[1], 100)[1]
        return some, topk.top_k(topk.Product(queries[:500], items.T), 100)[1]

    return found | _difference(device, both)
