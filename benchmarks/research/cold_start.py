"""Cold items and cold users, every item ranked: `python -m benchmarks cold_start --data DIR --seeds 3`.

In the first shop of `full_ranking` (Beauty) 5 % of the items have all their events hidden, and 5 % of the users all
their history. Tests: the last event of a user where it is a hidden item, and the last event of a hidden user. The
fusion practises on validation events with further 5 % of the items hidden from practice retrievers in the same way; the
items of the test are out of the practice catalogue. A user without any history gets one list for all: the popularity,
of several, that is best for validation events of people it was not counted from. Popularity and content neighbours
stand beside ours, with the 95 % bootstrap interval of the difference over all test events.
"""

import time
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.research import fusion, shops
from benchmarks.research.scoreboard import difference, gain, spread, table
from recspark.config.rankers import Gbdt

HIDDEN = 0.05
WARM_USERS = 6000  # of practice, beside all with a hidden item or history
SETTINGS = Gbdt(max_rows=4_000_000)
RIVALS = ("popular", "content neighbours")


@dataclass(frozen=True)
class Hidden:
    """bool masks of items (I,) and users (U,)."""

    items: np.ndarray
    users: np.ndarray


def hide(data: shops.Data, hidden: Hidden) -> shops.Data:
    """The world without the events of hidden items and users."""
    kept = ~(hidden.items[data.item] | hidden.users[data.user])
    columns = {name: getattr(data, name)[kept] for name in ("user", "item", "domain", "from_end")}
    return replace(data, **columns)


def draw(data: shops.Data, rng: np.random.Generator, beside: Hidden | None = None) -> Hidden:
    """A seeded share of the items and users, none of them in `beside`."""
    items, users = rng.random(len(data.content_ID)) < HIDDEN, rng.random(data.num_users) < HIDDEN
    if beside is not None:
        items, users = items & ~beside.items, users & ~beside.users
    return Hidden(items, users)


def slices(data: shops.Data, hidden: Hidden, target: int, out: Hidden) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(user, item) of the events `target` from the end by who is cold; nothing of `out`."""
    user, item = shops.questions(data, 0, target, np.flatnonzero(~out.users))
    user, item = user[~out.items[item]], item[~out.items[item]]
    cold_item, cold_user = hidden.items[item], hidden.users[user]
    return {
        "cold items": (user[cold_item & ~cold_user], item[cold_item & ~cold_user]),
        "cold users": (user[cold_user & ~cold_item], item[cold_user & ~cold_item]),
        "warm": (user[~cold_item & ~cold_user], item[~cold_item & ~cold_user]),
    }


def practise(data: shops.Data, test: Hidden, seed: int) -> fusion.Model:
    """The fusion for users with a history, learnt on validation events."""
    rng = np.random.default_rng((seed, 1))
    own = replace(draw(data, rng, test), users=np.zeros_like(test.users))
    both = Hidden(own.items | test.items, test.users)
    content_ID = np.where(test.items[:, None], 0.0, data.content_ID).astype(np.float32)
    world = shops.fit(replace(hide(data, both), content_ID=content_ID), seed)
    asked = slices(data, own, 1, test)
    some = rng.permutation(len(asked["warm"][0]))[:WARM_USERS]
    asked["warm"] = tuple(column[some] for column in asked["warm"])
    known = shops.learn(
        [b for name in ("cold items", "warm") for b in shops.blocks(world, 0, 1, *asked[name])], SETTINGS, seed
    )
    print(f"seed {seed}: held out, with history {known.held_out_ndcg:.4f}", flush=True)
    return known


def for_nobody(data: shops.Data, seed: int) -> np.ndarray:
    """Scores (I,) of the items for users without history, from everybody else's train and validation events.

    Counted are all train events, the last one of each user, or the validation events; the best of them for validation
    events, where people are cut in two halves and those are counted in the other half than the one they are tested on.
    """
    num_items = len(data.content_ID)

    def count(rows: np.ndarray) -> np.ndarray:
        return np.bincount(data.item[rows], minlength=num_items).astype(np.float64)

    half = np.random.default_rng((seed, 2)).integers(0, 2, data.num_users)[data.user]
    events = count(data.from_end >= 2)
    ties = events / (events.max() + 1)  # equal ones: the one with more events
    kinds = {"all events": data.from_end >= 2, "last events": data.from_end == 2, "validation": data.from_end == 1}
    found = {}
    for name, rows in kinds.items():
        gains = []
        for tested in (0, 1):
            counted = rows & (half != tested) if name == "validation" else rows
            truth = data.item[(data.from_end == 1) & (half == tested)]
            gains.append(gain(order(count(counted) + ties)[truth]))
        found[name] = float(np.concatenate(gains).mean())
    taken = max(found, key=lambda name: found[name])
    print(f"seed {seed}: without history by {taken}, of", {k: round(v, 4) for k, v in found.items()}, flush=True)
    return count(kinds[taken]) + ties


def order(scores_I: np.ndarray) -> np.ndarray:
    """Place of every item from 0, best first."""
    places = np.empty(len(scores_I), dtype=np.int64)
    places[np.argsort(-scores_I, kind="stable")] = np.arange(len(scores_I))
    return places


def one_seed(data: shops.Data, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """NDCG@10 of every test event: slice -> method -> (n,)."""
    hidden = draw(data, np.random.default_rng((seed, 0)))
    trees = practise(data, hidden, seed)
    visible = hide(data, hidden)
    world, same_for_all = shops.fit(visible, seed), order(for_nobody(visible, seed))
    nothing = Hidden(np.zeros_like(hidden.items), np.zeros_like(hidden.users))
    asked = slices(data, hidden, 0, nothing)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in ("cold items", "cold users"):
        parts: dict[str, list[np.ndarray]] = {}
        low = 0
        for block in shops.blocks(world, 0, 0, *asked[name]):
            truth = asked[name][1][low : low + len(block.users)]
            low += len(block.users)
            known = name == "cold items"
            ours = shops.listed(block, fusion.predict(trees, block.rows.features)) if known else same_for_all[truth]
            for method, places in {"ours": ours, **block.baselines}.items():
                parts.setdefault(method, []).append(gain(places))
        found[name] = {method: np.concatenate(values) for method, values in parts.items()}
    return found


def run(data: str, seeds: int, quick: bool) -> dict[str, float]:
    """N@10 of ours and the lower bounds of its gains; prints all lines."""
    started = time.monotonic()
    world = shops.only(shops.read(data, quick), 0)
    print(f"{world.domains[0]}: {world.num_users} users, {len(world.content_ID)} items", flush=True)
    runs = [one_seed(world, seed) for seed in range(seeds)]
    seconds = (time.monotonic() - started) / seeds
    methods = list(runs[0]["cold items"])
    lines = [{m: {f"{s} n@10": float(found[s][m].mean()) for s in found} for m in methods} for found in runs]
    table(lines, f"cold_start, {seeds} seeds, {seconds:.0f} s a seed")
    result: dict[str, float] = {}
    for name in runs[0]:
        result[f"{name} n@10"] = spread(lines, "ours", f"{name} n@10")[0]
        for rival in RIVALS:
            pairs = [np.concatenate([found[name][method] for found in runs]) for method in ("ours", rival)]
            mean, low, high = difference(*pairs)
            print(f"{name}: ours - {rival} = {mean:.4f} [{low:.4f}, {high:.4f}], {len(pairs[0])} events", flush=True)
            result[f"{name} over {rival}, lower"] = low
    return {**result, "seeds": seeds, "seconds_a_seed": round(seconds, 1)}
