"""uv run python -m benchmarks NAME [--data DIR] [--seeds N] [--quick]

Progress, then a table for people, then one JSON line. Without a name: what there is, and what each takes.
"""

import argparse
import importlib
import json
import sys
from typing import NoReturn

from recspark.errors import RecsparkError

# name -> (module, what it measures, what it takes on 2 cores)
BENCHMARKS = {
    "cross_market": (
        "benchmarks.research.cross_market",
        "NDCG@10 in markets that share items, 99 random negatives; DIR: xmarket-electronics",
        "10 min a seed",
    ),
    "cold_start": (
        "benchmarks.research.cold_start",
        "NDCG@10 of hidden items and hidden users in one shop",
        "10 min a seed",
    ),
    "full_ranking": (
        "benchmarks.research.full_ranking",
        "R@10, NDCG@10 of the next item of three shops, every item ranked, single and joint",
        "20 min a seed",
    ),
    "cross_domain_sequence": (
        "benchmarks.research.cross_domain_sequence",
        "HR@10, NDCG@10, MRR of the next event in mixed sequences of two domains, 999 random negatives",
        "4 min a seed",
    ),
    "transfer": (
        "benchmarks.research.transfer",
        "HR@10, NDCG@10 of the transformer alone, joint, with adapters, fine-tuned; data of cross_domain_sequence",
        "40 min a seed",
    ),
    "funnel": (
        "benchmarks.research.funnel",
        "buy-NDCG@10 of one ranker for view, cart and buy, and for buys alone; DIR: retail-rocket",
        "15 min a seed",
    ),
    "facts": (
        "benchmarks.research.facts",
        "filtered MRR and hits@10 of held-out facts of items, TransE; DIR: the folder of all data",
        "8 min a seed",
    ),
    "general": (
        "benchmarks.research.general",
        "R@10 and NDCG@10 of one scenario without time, full ranking; DIR: movielens-1m",
        "5 min a seed",
    ),
    "towers": (
        "benchmarks.kernels.towers",
        "milliseconds of a tower a scenario, against running all towers; no data",
        "1 min",
    ),
    "planted_transfer": (
        "benchmarks.research.planted_transfer",
        "does the gate take a transfer that helps and refuse one that hurts, on planted lists; no data; --seeds 10",
        "1 min a seed",
    ),
    "scenario_ranking": (
        "benchmarks.research.scenario_ranking",
        "AUC and log loss of likes in three scenarios by age; DIR: movielens-1m",
        "10 min a seed",
    ),
    "text_ctr": (
        "benchmarks.research.text_ctr",
        "AUC and UAUC of likes, warm and cold rows, titles known; DIR: movielens-1m-text-ctr",
        "3 min a seed",
    ),
    "text_adapter": (
        "benchmarks.research.text_adapter",
        "R@10 and MRR of the next film by text, MiniLM frozen and with an adapter; DIR: movielens-1m",
        "10 min a seed",
    ),
    "rankers": (
        "benchmarks.research.rankers",
        "NDCG@10 of all rankers and transfers on one night's windows, 8-bit scoring; Online Retail",
        "25 min a seed",
    ),
    "gpu": (
        "benchmarks.kernels.gpu",
        "rows a second of embedding, training, scoring and top-K in torch alone, on a GPU if there is one",
        "5 min",
    ),
    "topk": (
        "benchmarks.kernels.topk",
        "seconds of the K best of every user, against MLlib and a bare product; no data",
        "6 min",
    ),
    "night": (
        "benchmarks.night.night",
        "seconds and memory of a first night against the bare work in it, on Online Retail once, 4 and 16 times over",
        "60 min",
    ),
    "increment": (
        "benchmarks.night.night.increment",
        "a night with 1 % new events against the same night from nothing, on Online Retail 16 times over",
        "90 min",
    ),
    "feed": (
        "benchmarks.kernels.feed",
        "rows a second of the training feed, two ranks, against petastorm's loaders and bare readers; no data",
        "4 min",
    ),
    "train": (
        "benchmarks.kernels.train",
        "rows a second of training the ranker from Delta, against a bare torch loop, one and two processes; no data",
        "7 min",
    ),
    "embed": (
        "benchmarks.kernels.embed",
        "seconds of 20,000 texts to vectors, against SentenceTransformer and pandas UDFs; DIR: the folder of all data",
        "8 min",
    ),
    "score": (
        "benchmarks.kernels.score",
        "rows a second of the torch ranker by Spark, against a plain pandas UDF and the bare network; no data",
        "5 min",
    ),
    "metrics": (
        "benchmarks.kernels.metrics",
        "seconds of six metrics at four cutoffs by Spark, against RePlay (REPLAY_PYTHON) or MLlib; no data",
        "10 min",
    ),
    "cold_items": (
        "benchmarks.research.cold_items",
        "NDCG@10 of hidden items by each content source, all fused, with LoRA; DIR: movielens-1m, amazon-...-toys",
        "10 min a seed",
    ),
    "encode": (
        "benchmarks.kernels.encode",
        "images and sounds a second by Spark, against a bare loop; DIR: the folder of all data",
        "5 min",
    ),
    "int8": (
        "benchmarks.kernels.int8",
        "recall of the 10 nearest neighbours by how vectors are stored; DIR: as for embed",
        "3 min",
    ),
    "nightly": (
        "benchmarks.night.night.nightly",
        "seconds of a first night, the same again, and the night after",
        "10 min",
    ),
    "quality": (
        "benchmarks.night.night.quality",
        "NDCG@10 of published lists on what users then bought, at four dates",
        "20 min",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS))
    parser.add_argument("--data", default="data/online-retail", help="folder of the data set")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a smaller version, for a look")
    asked = parser.parse_args()
    if asked.name is None:
        for name, (_, what, cost) in sorted(BENCHMARKS.items()):
            print(f"{name:10s} {what} ({cost})")
        return
    module, what, _ = BENCHMARKS[asked.name]
    try:
        figures = importlib.import_module(module).run(asked.data, asked.seeds, asked.quick)
    except RecsparkError as error:
        refuse(str(error))
    except FileNotFoundError as error:
        if asked.data not in str(error):
            raise
        refuse(f"{asked.name}: {asked.data} is not the data set's folder; name it with --data ({what}): {error}")
    print(json.dumps({"benchmark": asked.name, **figures}))


def refuse(message: str) -> NoReturn:
    """Bad input, as the jobs say it."""
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
