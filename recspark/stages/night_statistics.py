"""night_statistics: are tonight's events and catalogue like those of earlier nights? Else the night is held.

Events are compared day by day and scenario by scenario with bands learnt from the days before (bands.py). What is not
held, or accepted, is stored, and the next night is compared with it; so a held delivery is held again when it comes
again. Lists are compared in the same way by `compare_lists`, before they are published.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from recspark import columns as c
from recspark.config.retrievers import RETRIEVERS
from recspark.config.schema import Config
from recspark.errors import PublishError
from recspark.sources import catalogue, raw
from recspark.stages import holds
from recspark.stages.holds import ALL, Delivery
from recspark.summary import Summary
from recspark.tables import interaction_days, night_statistics, published_runs
from recspark.tables.candidates import GIVEN, REPEAT
from recspark.tables.interaction_days import Day
from recspark.tables.interactions import TABLE as INTERACTIONS
from recspark.tables.night_statistics import CATALOGUE, EVENTS, LISTS, TABLE
from recspark.tables.recommendations import TABLE as RECOMMENDATIONS
from recspark.warehouse import artifacts
from recspark.warehouse.store import Store

log = logging.getLogger(__name__)

Figures = dict[tuple[date, str], dict[str, float]]  # (day, scenario) -> figure -> value
SETTINGS = "settings"  # in a commit's metadata: hash of what the figures of events depend on beside the rows
CLOSED = "closed"  # the digest of a day without events that was accepted
SHOWN = 5  # reasons in a message


def refresh(store: Store, config: Config, run_date: date, force: bool = False, accept: bool = False) -> Summary:
    """Compare the days of events that are new or have changed, and the catalogue; store their figures.

    Raises: PublishError if they lie outside the bands and `accept` is not set; published_runs gets a row `held`.
    """
    settings = _settings(config)
    days = {row[c.EVENT_DATE]: Day(*row[1:]) for row in store.read(interaction_days.TABLE).collect()}
    digests = {day: _digest(found) for day, found in days.items() if day is not None and day < run_date}
    stored = _Stored.read(store, EVENTS, run_date)
    same_settings = (store.stamp(TABLE, kind=EVENTS) or {}).get(SETTINGS) == settings
    known = stored.digests if same_settings and not force else {}
    changed = sorted(day for day, digest in digests.items() if known.get(day) != digest)
    gone = sorted(day for day, digest in stored.digests.items() if day not in digests and digest != CLOSED)
    free = _new_closed(digests, stored.digests, run_date)
    listing, old_listing = _listing(store, config, run_date)
    if not (changed or gone or free or listing != old_listing):
        return Summary(TABLE.noun, skipped=True, note="nothing new to compare")
    now = _figures(store, config, run_date, changed, days)
    past = stored.figures if same_settings else {key: x for key, x in now.items() if key[0] in stored.digests}
    old = {} if same_settings else stored.digests  # its days cannot be compared with how they were
    fresh = {key: x for key, x in now.items() if stored.digests.get(key[0]) != digests[key[0]] and key[0] not in old}
    closed = [day for day, digest in stored.digests.items() if digest == CLOSED]
    sizes = (one.size if one else None for one in (listing, old_listing))
    delivery = Delivery(run_date, fresh, past, gone if same_settings else (), closed, *sizes)
    first = f"first night: nothing to compare with; {len(changed)} days kept for the next ones"
    reasons, note = holds.judge(delivery) if stored.digests else ([], first)
    accepted = settle(store, config, run_date, "input", reasons, accept)
    rows = [(EVENTS, day, name, digests[day] if name == ALL else None, dict(x)) for (day, name), x in now.items()]
    rows += [(EVENTS, day, ALL, CLOSED, {"raw": 0.0}) for day in free]
    rows += [(CATALOGUE, run_date, ALL, listing.digest, {"items": listing.size})] if listing else []
    _write(store, rows, [*changed, *gone, *free], run_date, {"kind": EVENTS, SETTINGS: settings})
    return Summary(TABLE.noun, rows_out=len(rows), note=accepted or note, version=store.version(TABLE))


def settle(store: Store, config: Config, run_date: date, what: str, reasons: Sequence[str], accept: bool) -> str:
    """A note of what was accepted; empty without reasons.

    Raises: PublishError with the reasons if they are not accepted; published_runs gets a row `held`.
    """
    if not reasons:
        return ""
    more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
    reason = "; ".join(reasons[:SHOWN]) + more
    if accept:
        log.warning("%s of %s accepted: %s", what, run_date, reason)
        return f"accepted: {reason}"
    versions = published_runs.Versions(config.digest(*type(config).model_fields), inputs={})
    published_runs.write(store, run_date, published_runs.HELD, f"{what}: {reason}", versions)
    raise PublishError(
        f"{what} of {run_date} held: {reason}; readers keep the previous night. Correct the cause; or, if this is "
        "right, let it pass once: the same command with --accept"
    )


def compare_lists(store: Store, run_date: date, rows: DataFrame) -> tuple[dict[str, dict[str, float]], list[str]]:
    """(scenario -> figures of tonight's lists, why they are held: nothing if they are not)."""
    past = _Stored.read(store, LISTS, run_date).figures
    last = max((day for day, _ in past), default=None)
    before = None if last is None else store.read(RECOMMENDATIONS).where(F.col(c.RUN_DATE) == F.lit(last))
    found = night_statistics.of_lists(rows, before, (*RETRIEVERS, REPEAT, GIVEN)).collect()
    now = {row[c.SCENARIO]: dict(row.statistics) for row in found}
    old = {} if last is None else {name: x for (day, name), x in past.items() if day == last}
    return now, holds.judge_lists(run_date, now, past, old)


def has_lists(store: Store, run_date: date) -> bool:
    """Are the figures of a night's published lists stored? Not so where a run ended right after their commit."""
    return store.stamp(TABLE, run_date=run_date) is not None


def write_lists(store: Store, run_date: date, figures: Mapping[str, Mapping[str, float]]) -> None:
    """Store the figures of published lists, for the nights to come."""
    rows = [(LISTS, run_date, name, None, dict(x)) for name, x in sorted(figures.items())]
    frame = store.spark.createDataFrame(rows, TABLE.schema).coalesce(1)
    where = f"kind = '{LISTS}' AND day = DATE'{run_date}'" if store.exists(TABLE) else None
    store.replace(TABLE, frame, where=where, metadata={c.RUN_DATE: str(run_date)})


def _new_closed(digests: Collection[date], known: Collection[date], run_date: date) -> list[date]:
    """Days after the newest accepted one that have no events."""
    if not known:
        return []
    first = max(known) + timedelta(days=1)
    after = [first + timedelta(days=n) for n in range((run_date - first).days)]
    return [day for day in after if day not in digests]


def _figures(
    store: Store, config: Config, run_date: date, changed: Sequence[date], days: Mapping[date | None, Day]
) -> Figures:
    """Figures of the changed days, by scenario and of the delivery."""
    if not changed:
        return {}
    events = store.events(INTERACTIONS, None, run_date)
    rows = night_statistics.of_days(events, changed, numbers(config)).collect()
    found = {(row.day, row[c.SCENARIO]): dict(row.statistics) for row in rows}
    deliveries = night_statistics.of_deliveries(days)
    return {**found, **{(day, ALL): deliveries[day] for day in changed}}


def numbers(config: Config) -> dict[str, Column]:
    """Name -> the number of an event, null where it has none: its value, and context that can be read as numbers."""
    context = {name: F.col(c.CONTEXT).getItem(name).try_cast("double") for name in config.source.interactions.context}
    return {c.VALUE: F.col(c.VALUE), **context}


def _digest(day: Day) -> str:
    rejected = sum(day.rejected.values())
    return ":".join(map(str, (day.raw, day.accepted, day.merged, day.duplicates, rejected, day.rows_hash)))


def _settings(config: Config) -> str:
    """Hash of what the figures of a day depend on beside its rows: how events are read, and the code."""
    interactions = config.source.interactions.model_copy(update={"paths": ()})
    source = config.source.model_copy(update={"interactions": interactions})
    modules = ("recspark.tables.night_statistics",)
    return artifacts.fingerprint(INTERACTIONS.noun, config.model_copy(update={"source": source}), modules=modules)


@dataclass(frozen=True)
class _Listing:
    digest: str
    size: float


def _listing(store: Store, config: Config, run_date: date) -> tuple[_Listing | None, _Listing | None]:
    """The catalogue tonight and when it was last accepted; None without one."""
    source = config.source.items
    if source is None:
        return None, None
    stored = _Stored.read(store, CATALOGUE, run_date + timedelta(days=1))
    old = None
    if stored.digests:
        newest = max(stored.digests)
        old = _Listing(stored.digests[newest], stored.figures[newest, ALL]["items"])
    digest = raw.fingerprint(store.spark, source, catalogue.SECTION)
    digest = f"{config.digest(*(f'{catalogue.SECTION}.{key}' for key in catalogue.READ_FOR_IDS))}:{digest}"
    if old is not None and old.digest == digest:
        return old, old
    parsed = catalogue.parse(raw.read(store.spark, source, catalogue.SECTION), source, run_date)
    return _Listing(digest, float(parsed.select(c.ITEM_ID).distinct().count())), old


@dataclass(frozen=True)
class _Stored:
    """Accepted rows of one kind."""

    figures: Figures = field(default_factory=dict)
    digests: dict[date, str] = field(default_factory=dict)

    @classmethod
    def read(cls, store: Store, kind: str, before: date) -> "_Stored":
        if not store.exists(TABLE):
            return cls()
        rows = store.read(TABLE).where((F.col("kind") == kind) & (F.col("day") < F.lit(before))).collect()
        figures = {(row.day, row[c.SCENARIO]): dict(row.statistics) for row in rows}
        return cls(figures, {row.day: row.digest for row in rows if row.digest is not None})


def _write(
    store: Store, rows: Sequence[tuple[object, ...]], days: Sequence[date], run_date: date, stamp: dict[str, str]
) -> None:
    """Replace the rows of these days of events and of tonight's catalogue."""
    where = f"kind = '{CATALOGUE}' AND day = DATE'{run_date}'"
    if days:
        where += f" OR kind = '{EVENTS}' AND day IN ({', '.join(f'DATE{str(day)!r}' for day in days)})"
    frame = store.spark.createDataFrame(rows, TABLE.schema).coalesce(1)
    store.replace(TABLE, frame, where=where if store.exists(TABLE) else None, metadata=stamp)
