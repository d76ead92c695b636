"""uv run python -m benchmarks NAME [--data DIR] [--seeds N] [--quick] [options of that benchmark]

Prints progress, then a table for people, then one line of JSON. Without a name it lists the benchmarks by folder, with
the time that each takes.
"""

import argparse
import importlib
import json
import sys
from typing import NoReturn

from recspark.errors import RecsparkError

OPTIONS = ("dates", "horizon", "keep", "set")  # of some nights

FOLDERS = {
    "night": "whole nights, run by the command that a user runs",
    "kernels": "the speed of one step beside other programs or a bare loop",
    "research": "models alone, by the protocols of papers; no figures of a published night",
}

# folder -> name of the module in it -> (what it measures, what it takes on 2 cores)
BENCHMARKS = {
    "night": {
        "bad_rows": (
            "damaged raw rows that became something else than they must, in six formats; no data; --seeds: draws (100)",
            "50 min",
        ),
        "increment": (
            "a night with 1 % new events against the same night from nothing, on 16 copies of Online Retail",
            "90 min",
        ),
        "kills": (
            "what is lost or half after SIGKILL at every commit and renamed file of a small night; resumable; no data",
            "2 min a kill",
        ),
        "losses": (
            "what is lost or half after an executor died in each stage, or the disk was full; resumable; no data",
            "2 h; --quick 15 min",
        ),
        "night": (
            "seconds and memory of a first night against the bare work in it, on 1, 4 and 16 copies of Online Retail",
            "60 min",
        ),
        "nightly": (
            "seconds of a first night, the same again, and the night after",
            "10 min",
        ),
        "night_growth": (
            "seconds, memory and bytes of generated nights by users, items and scenarios, tenfold apart; resumable",
            "2 h; --quick 4 min",
        ),
        "night_holds": (
            "false stops in 30 clean nights, and faults that hold a night, 20 draws of each; any data set with a YAML",
            "20 min",
        ),
        "night_modes": (
            "NDCG@10 of nights with each body and each transfer of the torch ranker, and by default; any data set",
            "30 min a date",
        ),
        "night_quality": (
            "NDCG@10 of published lists on what users did afterwards, beside rivals; any data set with a YAML",
            "10 min a date",
        ),
        "night_transfer": (
            "NDCG@10 of each scenario's lists by a night of its own rows alone and by the joint night; any data set",
            "10 min a date, 3 min more a scenario",
        ),
        "races": (
            "two to five runs at once, stopped, with wrong clocks and failing writes: what is doubled or told wrongly",
            "50 min; --quick 3",
        ),
    },
    "kernels": {
        "embed": (
            "seconds to encode 20,000 texts, against SentenceTransformer and pandas UDFs; DIR: the folder of all data",
            "8 min",
        ),
        "encode": (
            "images and sounds a second by Spark, against a bare loop; DIR: the folder of all data",
            "5 min",
        ),
        "feed": (
            "rows a second of the training feed, two ranks, against petastorm's loaders and bare readers; no data",
            "4 min",
        ),
        "gpu": (
            "rows a second of embedding, training, scoring and top-K in torch alone, on a GPU if there is one",
            "5 min",
        ),
        "int8": (
            "recall of the 10 nearest neighbours by how vectors are stored; DIR: as for embed",
            "3 min",
        ),
        "linear": (
            "NDCG@10 of item-to-item weights over neighbours against the closed form, seconds; DIR: as for embed",
            "10 min",
        ),
        "metrics": (
            "seconds of six metrics at four cutoffs by Spark, against RePlay (REPLAY_PYTHON) or MLlib; no data",
            "10 min",
        ),
        "score": (
            "rows a second of the torch ranker by Spark, against a plain pandas UDF and the bare network; no data",
            "5 min",
        ),
        "topk": (
            "seconds of the K best items of every user, against MLlib and a bare matrix product; no data",
            "6 min",
        ),
        "towers": (
            "milliseconds of one tower for each scenario, against running all towers; no data",
            "1 min",
        ),
        "train": (
            "rows a second of training the ranker from Delta, 1 and 2 processes, against a bare torch loop; no data",
            "7 min",
        ),
    },
    "research": {
        "cold_items": (
            "NDCG@10 of hidden items by each content source, all fused, with LoRA; DIR: movielens-1m, amazon-...-toys",
            "10 min a seed",
        ),
        "cold_start": (
            "NDCG@10 of hidden items and hidden users in one shop",
            "10 min a seed",
        ),
        "cross_domain_sequence": (
            "HR@10, NDCG@10, MRR of the next event in mixed sequences of two domains, 999 random negatives",
            "4 min a seed",
        ),
        "cross_market": (
            "NDCG@10 in markets that share items, 99 random negatives; DIR: xmarket-electronics",
            "10 min a seed",
        ),
        "facts": (
            "filtered MRR and hits@10 of held-out facts of items, TransE; DIR: the folder of all data",
            "8 min a seed",
        ),
        "full_ranking": (
            "R@10, NDCG@10 of the next item of three shops, every item ranked, single and joint",
            "20 min a seed",
        ),
        "funnel": (
            "buy-NDCG@10 of one ranker for view, cart and buy, and for buys alone; DIR: retail-rocket",
            "15 min a seed",
        ),
        "general": (
            "R@10 and NDCG@10 of one scenario without time, full ranking; DIR: movielens-1m",
            "5 min a seed",
        ),
        "planted_transfer": (
            "whether the gate accepts a transfer that helps and refuses one that hurts, on planted lists; no data; "
            "--seeds 10",
            "1 min a seed",
        ),
        "rankers": (
            "NDCG@10 of all rankers and transfers on one night's windows, 8-bit scoring; Online Retail",
            "25 min a seed",
        ),
        "scenario_ranking": (
            "AUC and log loss of likes in three scenarios by age; DIR: movielens-1m",
            "10 min a seed",
        ),
        "text_adapter": (
            "R@10 and MRR of the next film by text, MiniLM frozen and with an adapter; DIR: movielens-1m",
            "10 min a seed",
        ),
        "text_ctr": (
            "AUC and UAUC of likes, warm and cold rows, titles known; DIR: movielens-1m-text-ctr",
            "3 min a seed",
        ),
        "transfer": (
            "HR@10, NDCG@10 of the transformer alone, joint, with adapters, fine-tuned; data of cross_domain_sequence",
            "40 min a seed",
        ),
    },
}


def main() -> None:
    folder_of = {name: folder for folder, names in BENCHMARKS.items() for name in names}
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(folder_of))
    parser.add_argument("--data", default="data/online-retail", help="folder of the data set")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a smaller version, to try it out")
    parser.add_argument(
        "--dates", help="night_quality: how many run dates, or dates with commas between them; night_holds: the end"
    )
    parser.add_argument("--horizon", type=int, help="night_quality: days after the night in which users are watched")
    parser.add_argument("--keep", help="night_quality, races: a folder for what is not run again")
    parser.add_argument("--set", action="append", help="night_quality: KEY=VALUE, as for the jobs")
    given = parser.parse_args()
    if given.name is None:
        print(listing())
        return
    folder = folder_of[given.name]
    what, _ = BENCHMARKS[folder][given.name]
    try:
        module = importlib.import_module(f"benchmarks.{folder}.{given.name}")
        options = {name: getattr(given, name) for name in OPTIONS if getattr(given, name) is not None}
        if unknown := sorted(set(options) - set(getattr(module, "OPTIONS", ()))):
            refuse(f"{given.name} does not take --{unknown[0]}")
        figures = module.run(given.data, given.seeds, given.quick, **options)
    except RecsparkError as error:
        refuse(str(error))
    except FileNotFoundError as error:
        if given.data not in str(error):
            raise
        refuse(f"{given.name}: {given.data} is not the data set's folder; name it with --data ({what}): {error}")
    print(json.dumps({"benchmark": given.name, **figures}))


def listing() -> str:
    """Every benchmark under its folder, with what it measures and takes."""
    lines = []
    for folder, names in BENCHMARKS.items():
        lines.append(f"benchmarks/{folder}/: {FOLDERS[folder]}")
        lines += [f"  {name:22s} {what} ({cost})" for name, (what, cost) in names.items()]
    return "\n".join(lines)


def refuse(message: str) -> NoReturn:
    """End with exit code 2 for bad input, as the jobs do."""
    print(message, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
