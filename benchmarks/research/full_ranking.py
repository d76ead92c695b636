"""Next item of three shops, every item ranked: `python -m benchmarks full_ranking --data DIR --seeds 3`.

Leave one out: a user's last event in a domain is the test, the last but one the validation; all unseen items of the
domain are ranked. Retrievers learn from train events only, validation events fit the fusion, test events are looked at
once. `single` knows one domain; `joint` all three, users' other domains included (their train events, before those of
the domain asked about, since the order between domains is unknown). Data: see `benchmarks.research.shops`.
"""

import time

import numpy as np

from benchmarks.research import fusion, shops
from benchmarks.research.scoreboard import gain, spread, table
from recspark.config.rankers import Gbdt

LEARNING_USERS = 5000  # of a domain: those whose validation lists the fusion learns from
SETTINGS = Gbdt(max_rows=4_000_000)


def learnt(world: shops.Fitted, seed: int) -> fusion.Model:
    """The fusion, from validation lists of some users of each domain."""
    rng = np.random.default_rng(seed)
    blocks = []
    for domain in range(len(world.data.domains)):
        users = np.unique(world.data.user[world.data.domain == domain])
        some = rng.choice(users, min(len(users), LEARNING_USERS), replace=False)
        blocks += shops.blocks(world, domain, 1, *shops.questions(world.data, domain, 1, some))
    return shops.learn(blocks, SETTINGS, seed)


def tested(world: shops.Fitted, trees: fusion.Model, domain: int) -> dict[str, np.ndarray]:
    """Place of each test item, from 0, by our list and by every baseline; a large number where it is not listed."""
    asked = shops.questions(world.data, domain, 0, np.arange(world.data.num_users))
    places: dict[str, list[np.ndarray]] = {}
    for block in shops.blocks(world, domain, 0, *asked):
        scores = fusion.predict(trees, block.rows.features)
        for name, found in {"ours": shops.listed(block, scores), **block.baselines}.items():
            places.setdefault(name, []).append(found)
    return {name: np.concatenate(found) for name, found in places.items()}


def figures(places: np.ndarray) -> dict[str, float]:
    """Recall@10 and NDCG@10 of one true item a list."""
    return {"r@10": float((places < 10).mean()), "n@10": float(gain(places).mean())}


def one_seed(data: shops.Data, seed: int) -> dict[str, dict[str, float]]:
    """Every line of the scoreboard for one seed."""
    lines: dict[str, dict[str, float]] = {}
    joint = shops.fit(data, seed)
    shared = learnt(joint, seed)
    print(f"seed {seed}: joint, NDCG@10 of held-out validation candidates {shared.held_out_ndcg:.4f}", flush=True)
    for domain, name in enumerate(data.domains):
        alone = shops.fit(shops.only(data, domain), seed)
        own = learnt(alone, seed)
        print(f"seed {seed}: {name} single, held out {own.held_out_ndcg:.4f}", flush=True)
        single = tested(alone, own, 0)
        places = {**{k: v for k, v in single.items() if k != "ours"}, "ours, single": single["ours"]}
        places["ours, joint"] = tested(joint, shared, domain)["ours"]
        for method, found in places.items():
            lines.setdefault(method, {}).update({f"{name} {k}": v for k, v in figures(found).items()})
    return lines


def run(data: str, seeds: int, quick: bool) -> dict[str, float]:
    """Figures of ours, mean over the seeds; prints all lines."""
    started = time.monotonic()
    world = shops.read(data, quick)
    print(f"{len(world.user)} events, {len(world.content_ID)} items of {', '.join(world.domains)}", flush=True)
    runs = [one_seed(world, seed) for seed in range(seeds)]
    seconds = (time.monotonic() - started) / seeds
    table(runs, f"full_ranking, {seeds} seeds, {seconds:.0f} s a seed")
    methods = {"single": "ours, single", "joint": "ours, joint"}
    result = {
        f"{key} {name}": spread(runs, method, name)[0] for key, method in methods.items() for name in runs[0][method]
    }
    return {**result, "seeds": seeds, "seconds_a_seed": round(seconds, 1)}
