"""Images and audio to vectors, by Spark into Delta: `python -m benchmarks encode --data DIR`.

DIR is the folder of all data: posters of movielens-1m and clothing-images, spoken-digits and environmental-sounds. The
models have random weights: a ViT of 22 M numbers and a wav2vec 2.0 of 15 M. So only the speed is measured, not the
quality of vectors.

Ours is the stage's own `refresh`: it opens the files, decodes, encodes and commits to item_embeddings; a second run
must encode nothing. The bare loop is one process with a torch thread for each core: open, prepare, forward, in batches
of the best of three sizes; it writes nothing. Start-up is not timed: both load their models before.
"""

import json
import os
import tempfile
import time
from datetime import date
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import functions as F

from benchmarks.kernels.embed import in_a_process, in_every_worker
from recspark import columns as c
from recspark.config.content import Encoder
from recspark.config.schema import Config
from recspark.encoders.vectors import vectors_to_array
from recspark.encoders.weights import loaded_version
from recspark.session import get_session
from recspark.stages.item_embeddings import embed
from recspark.stages.item_embeddings import stage as item_embeddings
from recspark.tables import item_embeddings as table
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse.store import Store

RUN_DATE = date(2020, 1, 1)
FILES = {
    "image": ("movielens-1m/posters/*.jpg", "clothing-images/**/*.jpg"),
    "audio": ("spoken-digits/*.wav", "environmental-sounds/*/*.ogg"),
}
TIMES = {"image": 4, "audio": 6}  # every file is used this often: a job of a few seconds is too short to measure
BATCH_SIZES = (1, 8, 32)


def files(data: str, modality: str, quick: bool) -> list[str]:
    """Paths in random order. Raises FileNotFoundError without any."""
    root = Path(data).resolve()
    found = sorted(str(path) for pattern in FILES[modality] for path in root.glob(pattern))
    if not found:
        raise FileNotFoundError(f"{data}: found none of {', '.join(FILES[modality])}")
    some = [found[row] for row in np.random.default_rng(0).permutation(len(found))]
    return some[:12] if quick else some * TIMES[modality]


def random_model(modality: str, folder: str, quick: bool) -> str:
    """Save a model of random weights and its preprocessor; returns the folder."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    if not quick:
        size = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    if modality == "image":
        hf.ViTModel(hf.ViTConfig(**size)).save_pretrained(folder)
        hf.ViTImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder)
    else:
        size["num_hidden_layers"] = min(size["num_hidden_layers"], 6)
        hf.Wav2Vec2Model(hf.Wav2Vec2Config(**size)).save_pretrained(folder)
        hf.Wav2Vec2FeatureExtractor(return_attention_mask=False).save_pretrained(folder)
    return folder


def bare(modality: str, folder: str, paths: list[str], threads: int) -> tuple[float, int, np.ndarray]:
    """(seconds, batch size, vectors) of the loop of a model card, with transformers alone, in a process of its own."""
    import torch
    import transformers as hf

    torch.set_num_threads(threads)
    model = hf.AutoModel.from_pretrained(folder).eval()
    prepare: Any = hf.AutoImageProcessor if modality == "image" else hf.AutoFeatureExtractor
    encode = partial(_image if modality == "image" else _audio, model, prepare.from_pretrained(folder))
    sizes = BATCH_SIZES if modality == "image" else (1,)  # padding would change the vectors of this wav2vec 2.0
    some, tried = paths[: 2 * max(BATCH_SIZES)], {}
    with torch.inference_mode():
        for size in sizes:
            began = time.monotonic()
            [encode(some[low : low + size]) for low in range(0, len(some), size)]
            tried[size] = time.monotonic() - began
        size = min(tried, key=tried.__getitem__)
        began = time.monotonic()
        parts = [encode(paths[low : low + size]) for low in range(0, len(paths), size)]
    return time.monotonic() - began, size, np.concatenate(parts)


def _image(model: Any, processor: Any, paths: list[str]) -> np.ndarray:
    from PIL import Image

    pictures = [Image.open(BytesIO(Path(path).read_bytes())).convert("RGB") for path in paths]
    hidden = model(**processor(images=pictures, return_tensors="pt")).last_hidden_state
    return np.asarray(hidden[:, 0])


def _audio(model: Any, extractor: Any, paths: list[str]) -> np.ndarray:
    from recspark.encoders import audio

    clip = audio.decode(Path(paths[0]).read_bytes(), extractor.sampling_rate)
    hidden = model(**extractor(clip, sampling_rate=extractor.sampling_rate, return_tensors="pt")).last_hidden_state
    return np.asarray(hidden.mean(dim=1))


def write_items(store: Store, paths: list[str]) -> None:
    rows = [(f"{row:06d}", path) for row, path in enumerate(paths)]
    store.merge(ITEMS, store.spark.createDataFrame(rows, f"{c.ITEM_ID} string, {c.MEDIA} string").select(
        c.ITEM_ID,
        F.lit(None).cast("string").alias(c.TEXT),
        F.expr("CAST(map() AS map<string,string>)").alias(c.ATTRIBUTES),
        c.MEDIA,
        F.sha2(F.concat(c.ITEM_ID, c.MEDIA), 256).alias(c.CONTENT_HASH),
        F.lit(RUN_DATE).alias(c.FIRST_SEEN),
    ))  # fmt: skip


def load(one: Encoder, version: str) -> None:
    embed.task_encoder(one, version)


def one_modality(data: str, modality: str, quick: bool) -> dict[str, Any]:
    cores, paths = os.cpu_count() or 1, files(data, modality, quick)
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(modality, f"{folder}/model", quick)
        one = Encoder(encoder=model, modality=modality)
        events = {"format": "parquet", "paths": ["x"], **dict.fromkeys(("scenario", "user_id", "item_id"), "x")}
        tree = {"warehouse": f"{folder}/warehouse", "source": {"interactions": {**events, "event_time": "x"}}}
        config = Config.model_validate({**tree, "item_embeddings": one.model_dump()})
        spark, owned = get_session({}, app_name="encode")
        store = Store(spark, config, "encode")
        write_items(store, paths)
        in_every_worker(spark, cores, partial(load, one, loaded_version(one)))
        began = time.monotonic()
        summary = item_embeddings.refresh(store, config, RUN_DATE)
        ours = time.monotonic() - began
        again = item_embeddings.refresh(store, config.model_copy(update={"seed": 1}), RUN_DATE, force=False).rows_out
        rows = store.read(table.TABLE).orderBy(c.ITEM_ID).select(c.EMBEDDING).toArrow()[c.EMBEDDING]
        seconds, size, vectors = in_a_process(partial(bare, modality, model, paths, cores))
        apart = float(np.abs(vectors_to_array(rows) - vectors).max())
        if owned:
            spark.stop()
    found = {
        "items": len(paths),
        "seconds": round(ours, 1),
        "items_a_second": round(summary.rows_out / ours, 1),
        "bare_items_a_second": round(len(paths) / seconds, 1),
        "of_bare": round(seconds / ours, 2),
        "bare_batch": size,
        "second_run_encodes": again,
        "largest_difference": apart,
    }
    print(f"{modality:6s} {json.dumps(found)}", flush=True)
    return found


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """One run of each modality; `seeds` is not used."""
    return {modality: one_modality(data, modality, quick) for modality in FILES}
