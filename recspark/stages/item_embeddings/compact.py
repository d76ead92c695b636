"""Compact vectors for storage: fewer numbers (PCA) or smaller ones (int8), and how many neighbours that costs."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark import model_folder
from recspark.arrays import Array
from recspark.config.content import Encoder
from recspark.encoders import compact as compacting
from recspark.encoders.vectors import Storage, array_to_vectors, has_content, vectors_to_array
from recspark.encoders.weights import version_of
from recspark.errors import ConfigError
from recspark.warehouse.store import Store

log = logging.getLogger(__name__)


def folder(store: Store, one: Encoder) -> str:
    """The folder of the fitted PCA projection of an encoder."""
    return f"{store.models('item_embeddings')}/{version_of(one).replace('/', '--')}"


def is_fitted(store: Store, one: Encoder) -> bool:
    """False if the fitted PCA projection is missing."""
    return one.pca is None or model_folder.exists(folder(store, one))


def compact(store: Store, rows: DataFrame, encoders: Sequence[Encoder], seed: int) -> tuple[DataFrame, list[str]]:
    """Reduce the vectors of every encoder to the configured number of components and storage type.

    A projection is fitted once and kept: the next night's vectors must lie in the same space. `rows`: of several
    encoders, uncompacted float32, persisted. Memory: the driver holds a sample of `compact.FIT_ROWS` vectors.

    Returns: the rows to store; and notes, for each encoder the share of nearest neighbours that it keeps.
    Raises: ConfigError if there are too few vectors to fit a projection.
    """
    parts = [rows.where(~F.col(c.ENCODER).isin([version_of(one) for one in encoders]))]  # facts, which are small
    losses = []
    for one in encoders:
        version, part = version_of(one), rows.where(F.col(c.ENCODER) == F.lit(version_of(one)))
        if one.pca is None and one.storage == "float32":
            parts.append(part)
            continue
        sample = _sample(part)
        projection = _projection(store, one, sample, seed)
        parts.append(part.mapInArrow(_compacted(projection, one.storage), part.schema))
        fewer = sample if projection is None else projection(sample)
        kept = compacting.recall(sample, vectors_to_array(array_to_vectors(fewer, one.storage), None, one.storage))
        if np.isfinite(kept):
            losses.append(f"{version} keeps {kept:.3f} of the {compacting.NEAREST} nearest")
            log.info("item_embeddings: %s", losses[-1])
    return reduce(DataFrame.unionByName, parts), losses


def _sample(rows: DataFrame) -> Array:
    """(n, D) vectors of items chosen by a hash of their id."""
    ordered = rows.where(F.col(c.EMBEDDING).isNotNull()).orderBy(F.xxhash64(c.ITEM_ID), c.ITEM_ID)
    return vectors_to_array(ordered.limit(compacting.FIT_ROWS).select(c.EMBEDDING).toArrow()[c.EMBEDDING])


def _projection(store: Store, one: Encoder, sample: Array, seed: int) -> compacting.Projection | None:
    if one.pca is None:
        return None
    path = folder(store, one)
    if not model_folder.exists(path):
        if min(sample.shape) < one.pca:
            raise ConfigError(
                f"item_embeddings.pca: {one.pca} components of {one.encoder} cannot be fitted on {sample.shape[0]} "
                f"items with {sample.shape[1]} numbers each; lower it"
            )
        fitted = compacting.fit(sample, one.pca, one.whiten, seed)
        model_folder.save(path, {"encoder": version_of(one), "fitted_on": len(sample)}, vars(fitted))
    return compacting.Projection(*(np.asarray(model_folder.open_array(path, name)) for name in ("mean", "components")))


def _compacted(
    projection: compacting.Projection | None, storage: Storage
) -> Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def compacted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            vectors = vectors_to_array(columns[c.EMBEDDING])
            if projection is not None:
                fewer = np.zeros((len(vectors), len(projection.components)), dtype=np.float32)
                if (known := has_content(vectors)).any():
                    fewer[known] = projection(vectors[known])
                vectors = fewer
                columns[c.DIM] = pa.repeat(pa.scalar(vectors.shape[1], pa.int32()), len(vectors))
            columns[c.EMBEDDING] = array_to_vectors(vectors, storage)
            yield pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))

    return compacted
