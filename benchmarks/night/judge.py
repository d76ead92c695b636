"""How good lists are: NDCG@K over what users did afterwards, with intervals over users; written apart from the product.

Lists are rows (scenario, user_id, item_id, rank), rank from 1; the truth is rows (scenario, user_id, item_id). A list
of the truth without rows counts 0. The product's own metrics (recspark/metrics.py) give the same, which a test checks.
"""

import numpy as np
import pandas as pd

K = 10
LIST = ["scenario", "user_id"]
SAMPLES = 2000  # of users, for an interval


def ndcg(lists: pd.DataFrame, truth: pd.DataFrame, k: int = K) -> pd.Series:
    """NDCG@k of every list of the truth, by (scenario, user_id)."""
    wanted = truth.groupby(LIST).size()
    hits = lists[lists["rank"] <= k].merge(truth[[*LIST, "item_id"]], on=[*LIST, "item_id"])
    gain = (1.0 / np.log2(1.0 + hits["rank"])).groupby([hits[name] for name in LIST]).sum()
    best = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    return gain.reindex(wanted.index, fill_value=0.0) / best[np.minimum(wanted, k) - 1]


def recall(candidates: pd.DataFrame, truth: pd.DataFrame) -> float:
    """The share of a list's truth that is among its candidates, mean over the lists of the truth."""
    rows = candidates[[*LIST, "item_id"]].drop_duplicates()
    found = truth.merge(rows, on=[*LIST, "item_id"], how="left", indicator=True)
    return float((found["_merge"] == "both").groupby([found[name] for name in LIST]).mean().mean())


def interval(difference: pd.Series, seed: int = 0) -> tuple[float, float, float]:
    """(mean, low, high) of a value of every list: 95 % of the means over samples of users, each with all lists."""
    of_user = difference.groupby("user_id").agg(["sum", "size"])
    draws = np.random.default_rng(seed).multinomial(len(of_user), np.full(len(of_user), 1 / len(of_user)), SAMPLES)
    means = (draws @ of_user["sum"].to_numpy()) / (draws @ of_user["size"].to_numpy())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def regret(modes: dict[str, pd.Series], chosen: dict[str, str]) -> pd.DataFrame:
    """For each scenario what the gate chose, its NDCG, the best mode in hindsight and its NDCG; the last row is the sum
    over all lists. `modes`: mode -> NDCG of every list if all scenarios had it."""
    table = pd.DataFrame(modes)
    rows = []
    for scenario, part in table.groupby(level="scenario"):
        means = part.mean()
        mode = chosen.get(str(scenario), "")
        own = means.get(mode, 0.0)
        rows.append((scenario, len(part), mode, own, means.idxmax(), means.max(), means.max() - own))
    names = ["scenario", "lists", "chosen", "ndcg", "best", "best_ndcg", "regret"]
    found = pd.DataFrame(rows, columns=names)
    mean = [np.average(found[name], weights=found["lists"]) for name in ("ndcg", "best_ndcg", "regret")]
    found.loc[len(found)] = ["(all)", found["lists"].sum(), "", mean[0], "", mean[1], mean[2]]
    return found
