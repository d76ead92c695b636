"""Several shops' leave-one-out data with content, and lists of candidates with features for users of one of them.

DIR/interactions.parquet (domain, user, item, pos = order of the user in the domain) and DIR/items.parquet (domain,
item, title, words, s3rec_attribute_ids). A user's last event in a domain is the test, the last but one the validation.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks.research import fusion, list_fusion, transitions
from benchmarks.research.event_time_features import Lists
from recspark import metrics
from recspark.config.rankers import Gbdt
from recspark.config.retrievers import ContentTowers
from recspark.encoders import text
from recspark.histories import Histories, owners, ranges
from recspark.models.retrievers import affinity, content, content_towers, pool
from recspark.models.retrievers.catalogue import Catalogue

LENGTH = 50
ATTRIBUTE_DIM = 128
QUICK_USERS = 2000
BLOCK = 256
POOLS = {  # what ranks all items -> how many of its best become candidates
    "forward_weak": 80, "near_weak": 60, "near_recent": 60, "whole_weak": 40, "spectral_recent": 60, "towers": 80,
    "popular": 30, "late": 30,
}  # fmt: skip
BASELINES = {  # line of the table -> what it ranks by
    "popular": "popular", "co-occurrence in sequence": "near_recent", "item kNN": "whole",
    "content neighbours": "content", "content towers": "towers",
}  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Events in order of (domain, user, pos); items of a domain are neighbours: domain d owns item_idx
    first_item[d]:first_item[d + 1]. `from_end` 0 = test, 1 = validation, counted in (user, domain)."""

    user: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    from_end: np.ndarray
    first_item: np.ndarray
    content_ID: np.ndarray
    domains: tuple[str, ...]
    num_users: int


def read(folder: str, quick: bool) -> Data:
    """`quick`: some users only."""
    events = pd.read_parquet(Path(folder) / "interactions.parquet")
    items = pd.read_parquet(Path(folder) / "items.parquet").sort_values(["domain", "item"], kind="stable")
    items = items.drop_duplicates(["domain", "item"], ignore_index=True)
    domains = tuple(items["domain"].unique())
    events = events.sort_values(["domain", "user", "pos"], kind="stable")
    events["from_end"] = events.groupby(["domain", "user"]).cumcount(ascending=False)
    if quick:
        kept = np.unique(events["user"])[:: max(1, events["user"].nunique() // (QUICK_USERS * len(domains)))]
        events = events[events["user"].isin(kept)]
    code = pd.MultiIndex.from_frame(items[["domain", "item"]])
    item = code.get_indexer(pd.MultiIndex.from_frame(events[["domain", "item"]]))
    domain = pd.Index(domains).get_indexer(events["domain"])
    first_item = np.searchsorted(pd.Index(domains).get_indexer(items["domain"]), np.arange(len(domains) + 1))
    user = pd.factorize(events["user"], sort=True)[0]
    return Data(
        user,
        item,
        domain,
        events["from_end"].to_numpy(),
        first_item,
        content_vectors(items, folder),
        domains,
        int(user.max()) + 1,
    )


def content_vectors(items: pd.DataFrame, folder: str) -> np.ndarray:
    """Text vectors beside a low-rank view of the attributes, each of length 1, float32. The encoder's pass over the
    texts is kept in the temporary folder."""
    title = items["title"].fillna("").to_numpy()
    texts = np.where(title != "", title, items["words"].fillna("").to_numpy()).tolist()
    name = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:24]
    cache = Path(tempfile.gettempdir()) / "recspark-benchmarks" / f"{name}.npy"
    if not cache.exists():
        print(f"encoding {len(texts)} texts of {folder}, once", flush=True)
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, text.load().encode(texts))
    lists = items["s3rec_attribute_ids"].fillna("").str.findall(r"\d+")
    row = np.repeat(np.arange(len(items)), lists.str.len())
    tokens = items["domain"].to_numpy()[row] + np.concatenate([np.array(ids, dtype=object) for ids in lists])
    return np.hstack((content.unit(np.load(cache)), attributes(row, pd.factorize(tokens)[0], len(items))))


def attributes(row: np.ndarray, token: np.ndarray, num_items: int) -> np.ndarray:
    """Items' attributes, rare ones counting more, on their leading directions; rows of length 1, float32."""
    has = sp.csr_matrix((np.ones(len(row)), (row, token)), shape=(num_items, int(token.max()) + 1))
    has.data[:] = 1.0
    rarity = np.log(num_items / np.asarray(has.sum(axis=0)).ravel())
    weighted = has @ sp.diags(rarity)
    values, vectors = np.linalg.eigh((weighted.T @ weighted).toarray())
    return content.unit(weighted @ vectors[:, np.argsort(-values)[:ATTRIBUTE_DIM]])


def histories(data: Data, kept: np.ndarray, users: np.ndarray, last_domain: np.ndarray) -> Histories:
    """The `kept` events of some users, one row of histories each (a user may come twice): those of `last_domain`
    (one a row) at the end."""
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(data.user[rows], kind="stable")]
    starts = np.searchsorted(data.user[rows], np.arange(data.num_users + 1))
    size = (starts[1:] - starts[:-1])[users]
    offsets = np.concatenate(([0], np.cumsum(size)))
    owner = owners(offsets)
    picked = rows[starts[users][owner] + ranges(size)]
    picked = picked[np.lexsort((data.domain[picked] == last_domain[owner], owner))]
    unknown = np.full(len(picked), np.nan)
    return Histories(offsets, data.item[picked], data.domain[picked], unknown, np.ones(len(picked)), unknown, unknown)


@dataclass(frozen=True)
class Fitted:
    """Retrievers of one world (one domain or all), fitted on its train events."""

    data: Data
    train: Histories
    views: transitions.Model
    towers: content_towers.Model


@dataclass(frozen=True)
class Block:
    """Candidates of some users of one domain, with features and labels (n,); `users` (L,).
    `baselines`: name -> place of the truth among all unseen items of the domain, from 0, (L,)."""

    users: np.ndarray
    lists: Lists
    rows: list_fusion.Rows
    labels: np.ndarray
    baselines: dict[str, np.ndarray]


def only(data: Data, domain: int) -> Data:
    """The world in which there is one domain."""
    kept, low, high = data.domain == domain, *data.first_item[domain : domain + 2]
    names, user = np.unique(data.user[kept], return_inverse=True)
    columns = (user, data.item[kept] - low, np.zeros(kept.sum(), dtype=np.int64), data.from_end[kept])
    content_ID, names_of = data.content_ID[low:high], data.domains[domain : domain + 1]
    return Data(*columns, np.array([0, high - low]), content_ID, names_of, len(names))


def fit(data: Data, seed: int) -> Fitted:
    """Retrievers on the train events; a user's domains stand one after the other."""
    everybody = np.arange(data.num_users)
    train = histories(data, data.from_end >= 2, everybody, np.full(len(everybody), -1))
    catalogue = Catalogue(len(data.content_ID), len(data.domains), data.content_ID)
    views = transitions.fit(train, catalogue, transitions.Settings(length=LENGTH), seed)
    return Fitted(data, train, views, content_towers.fit(train, catalogue, ContentTowers(), seed))


def questions(data: Data, domain: int, target: int, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(user, item) of the events `target` from the end in a domain, of those of its users that are in `users`."""
    chosen = (data.domain == domain) & (data.from_end == target) & np.isin(data.user, users)
    return data.user[chosen], data.item[chosen]


def blocks(world: Fitted, domain: int, target: int, user: np.ndarray, truth: np.ndarray) -> Iterator[Block]:
    """Lists of users in a domain, with their next items; known are the events before `target`."""
    data = world.data
    known = np.where(data.domain == domain, data.from_end > target, data.from_end >= 2)
    for low in range(0, len(user), BLOCK):
        at = slice(low, low + BLOCK)
        here = histories(data, known, user[at], np.full(len(user[at]), domain))
        yield block(world, here, domain, truth[at], user[at])


def block(world: Fitted, here: Histories, domain: int, truth: np.ndarray, users: np.ndarray) -> Block:
    """Candidates of all retrievers and their features for users in one domain."""
    low, high = world.data.first_item[domain : domain + 2]
    scenario, nowhen = np.full(len(truth), domain), np.full(len(truth), np.nan)
    found = views_of(world, here, scenario, nowhen)
    seen = affinity.seen(here.offsets, here.item_idx, len(world.data.content_ID))
    own = {name: scores[:, low:high] for name, scores in found.items()}
    tops = [best(own[name], k, seen[:, low:high]) for name, k in POOLS.items()]
    pooled = pool.pool(tops, len(truth), high - low)
    owner, item = pooled.list_pos, pooled.item_idx + low
    lists = Lists(here, scenario, nowhen, metrics.offsets_of(owner, len(truth)), item)
    values = np.stack([found[name][owner, item] for name in transitions.VIEWS], axis=1)
    extra = {"towers": found["towers"][owner, item], "content": found["content"][owner, item]}
    rows = list_fusion.rows(world.views, world.train, lists, extra, values)
    places = {name: place(own[view], seen[:, low:high], truth - low) for name, view in BASELINES.items()}
    return Block(users, lists, rows, (item == truth[owner]).astype(np.float32), places)


def best(scores: np.ndarray, k: int, seen: sp.csr_matrix) -> np.ndarray:
    """The k best unseen items of each row in any order, -1 where the score is not above 0; for a pool, whose order does
    not matter, cheaper than `top_k` on rows that are mostly 0."""
    masked = np.array(scores)
    masked[owners(seen.indptr), seen.indices] = 0.0
    k = min(k, scores.shape[1])
    found = np.argpartition(masked, scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    return np.where(np.take_along_axis(masked, found, axis=1) > 0, found, -1)


def views_of(world: Fitted, here: Histories, scenario: np.ndarray, time: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that scores all items, float32 (L, I) each."""
    found = transitions.views(world.views, here)
    found["towers"] = content_towers.scores(world.towers, here, scenario, time)
    content_ID = world.towers.content_IC
    items_UI = affinity.seen(here.offsets, here.item_idx, len(content_ID))
    found["content"] = content.scores(content.profiles(items_UI, content_ID), content_ID)
    found["popular"] = np.broadcast_to(world.views.counts_I, found["towers"].shape)
    found["late"] = np.broadcast_to(world.views.late_I, found["towers"].shape)
    return found


def place(scores: np.ndarray, seen: sp.csr_matrix, truth: np.ndarray) -> np.ndarray:
    """Place of the truth among the unseen items, from 0; a tie ranks it last."""
    own = scores[np.arange(len(truth)), truth][:, None]
    ahead = (scores >= own).sum(axis=1) - 1
    owner = owners(seen.indptr)
    return ahead - np.bincount(owner, scores[owner, seen.indices] >= own[owner, 0], len(truth)).astype(np.int64)


def listed(block: Block, scores: np.ndarray) -> np.ndarray:
    """Place of the truth in each list by `scores` (n,), from 0; the largest integer where it is no candidate."""
    owner, count = block.lists.owner, len(block.lists.time)
    own = np.full(count, -np.inf)
    own[owner[block.labels > 0]] = scores[block.labels > 0]
    ahead = np.bincount(owner, (scores >= own[owner]) & (block.labels == 0), count).astype(np.int64)
    return np.where(np.isfinite(own), ahead, np.iinfo(np.int64).max)


def together(parts: Sequence[Lists]) -> Lists:
    """Blocks of lists as one."""

    def joined(offsets: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(([0], np.cumsum(np.concatenate([np.diff(x) for x in offsets]))))

    known = [part.histories for part in parts]
    columns = {n: np.concatenate([getattr(h, n) for h in known]) for n in vars(known[0]) if n != "offsets"}
    here = Histories(offsets=joined([h.offsets for h in known]), **columns)
    rest = (np.concatenate([getattr(p, n) for p in parts]) for n in ("scenario_idx", "time"))
    return Lists(here, *rest, joined([p.offsets for p in parts]), np.concatenate([p.item_idx for p in parts]))


def learn(parts: Sequence[Block], settings: Gbdt, seed: int) -> fusion.Model:
    """The fusion of some blocks of lists whose outcome is known."""
    features = np.concatenate([part.rows.features for part in parts])
    labels, people = np.concatenate([part.labels for part in parts]), np.concatenate([part.users for part in parts])
    lists = together([part.lists for part in parts])
    return fusion.fit(features, parts[0].rows.names, lists, labels, people, (settings,), seed)
