"""How many nearest neighbours smaller stored vectors lose: `python -m benchmarks int8 --data DIR`.

DIR as for `embed`: real texts, encoded by all-MiniLM-L6-v2. For each of 1,000 texts the 10 nearest by cosine among all
float32 vectors are compared with the 10 nearest among the vectors of each storage, also after PCA
(`item_embeddings.pca`).
"""

from typing import Any

from benchmarks.kernels.embed import read_texts
from recspark.encoders import compact, text
from recspark.encoders.vectors import STORAGES, array_to_vectors, vectors_to_array

TEXTS, QUERIES = 10_000, 1000


def run(data: str, seeds: int, quick: bool) -> dict[str, Any]:
    """storage -> recall@10 and bytes of a vector; `seeds` is not used."""
    vectors = text.load(device="cpu").encode(read_texts(data, 200 if quick else TEXTS))
    found: dict[str, Any] = {}
    for dim in (None, *(d for d in (128, 64) if d < min(vectors.shape))):
        fewer = vectors if dim is None else compact.fit(vectors, dim, False, 0)(vectors)
        for storage in STORAGES:
            cells = array_to_vectors(fewer, storage)
            name = storage if dim is None else f"{storage}, pca {dim}"
            recall = compact.recall(vectors, vectors_to_array(cells, storage=storage), queries=QUERIES)
            found[name] = {"recall@10": round(recall, 4), "bytes": len(cells[0].as_py())}
            print(f"{name:18s} {found[name]}", flush=True)
    return {"texts": len(vectors), **found}
