"""item_embeddings: a vector of every item by every encoder of the night, each item encoded once."""

from datetime import date
from functools import reduce

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.schema import Config
from recspark.stages.item_embeddings import compact, facts
from recspark.stages.item_embeddings.embed import embed_with_reasons
from recspark.stages.item_embeddings.encoders import FACTS, content_encoders, encoders_of, encodes_facts
from recspark.stages.item_embeddings.roots import digest_of, roots_of
from recspark.summary import Summary
from recspark.tables import item_embeddings as table
from recspark.tables import rejected_events
from recspark.tables.item_facts import TABLE as ITEM_FACTS
from recspark.tables.items import TABLE as ITEMS
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

ROOTS = "media_roots"  # in a commit's metadata: the hash of where files might lie


def refresh(store: Store, config: Config, run_date: date, force: bool = False) -> Summary:
    """Embed the items that are new or have changed; without any, nothing is committed.

    Raises: ConfigError for an encoder that is missing or named twice, DataError if the facts to train on are missing.
    """
    inputs, notes = [store.token(ITEMS)], []
    if encodes_facts(config):
        notes = [facts.refresh(store, config, run_date, force)]
        inputs.append(store.token(ITEM_FACTS))
    encoders = encoders_of(store, config, run_date)
    versions = [one.version for one in encoders]
    note = "; ".join([", ".join(versions), *notes])
    fingerprint = artifacts.fingerprint(table.TABLE.noun, config, *versions, *inputs)
    if not force and artifacts.is_fresh(store, table.TABLE, run_date, fingerprint):
        return Summary(table.TABLE.noun, skipped=True, note=note)
    items, roots = store.read(ITEMS), roots_of(store.spark, config)
    settled = (store.stamp(table.TABLE) or {}).get(ROOTS) == digest_of(roots)
    stored = store.read(table.TABLE) if store.exists(table.TABLE) and not force else None
    parts = []
    for one in encoders:
        if one.version.startswith(FACTS):
            parts.append(facts.embed_new(store, items, stored, one.version))
            continue
        inputs_of_one = table.inputs(items, one.settings)
        if stored is not None and compact.is_fitted(store, one.settings):
            again = one.settings.modality != "text" and not settled  # a file without a vector may be allowed by now
            known = stored.where(F.col(c.EMBEDDING).isNotNull()) if again else stored
            inputs_of_one = table.only_new(inputs_of_one, known, one.version)
        parts.append(embed_with_reasons(inputs_of_one, one.settings, roots))
    rows = reduce(DataFrame.unionByName, parts).persist()  # one merge, one commit; and a merge reads its source twice
    try:
        counts = {row[0]: row[1] for row in rows.groupBy(c.REASON).count().collect()}
        count = sum(counts.values())
        rejected = {reason: n for reason, n in counts.items() if reason is not None}
        if rejected:
            kept = (c.ITEM_ID, c.ENCODER, c.CONTENT_HASH)
            rejected_events.add(store, rejected_events.of(rows, kept, run_date))
        settings = content_encoders(store, config, run_date)
        vectors, losses = compact.compact(store, rows, settings, config.seed) if count else (rows, [])
        made = {artifacts.FINGERPRINT: fingerprint, ROOTS: digest_of(roots)}
        version = store.merge(table.TABLE, table.build(vectors), made) if count else None
        artifacts.confirm(store, table.TABLE, run_date, fingerprint)
    finally:
        rows.unpersist()
    return Summary(table.TABLE.noun, items.count(), count, rejected, count == 0, "; ".join([note, *losses]), version)
