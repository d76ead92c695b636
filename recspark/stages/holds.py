"""Why a night is held: figures of its events, catalogue or lists that are unlike those of earlier nights.

No Spark: figures of days and scenarios, as tables/night_statistics.py makes them, in; reasons as text out. An empty
list of reasons lets the night pass.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from recspark import bands
from recspark import columns as c
from recspark.bands import COUNT, NUMBER, SHARE, SPREAD, Measure
from recspark.tables.night_statistics import EVENT_ROWS, LOW, MIDDLE, OF_SOURCE, N
from recspark.tables.night_statistics import SPREAD as OF_SPREAD
from recspark.windows import EPOCH, as_of_day

Figures = Mapping[tuple[date, str], Mapping[str, float]]  # (day, scenario) -> figure -> value

ALL = c.EVERYONE
# A day without events, on a weekday that usually has some, is held if so many days before had at most HOLIDAYS others,
# and the last RECENT days none: those are one long holiday.
OPEN_DAYS, HOLIDAYS = 56, 1
RECENT = 7  # days: changed ones that are older are compared by their number of rows alone
LOST = 0.5  # part of a past day's rows whose loss is held
CHANGED = 0.1  # part of a scenario's past rows whose change is held
UNLISTED = 0.2  # part of the catalogue whose loss is held
_COUNTS = ("rows", "users", "items", "raw", "lists")
_SHARES = {
    "different items of users": ("pairs", "rows"),
    "known users": ("known_users", "users"),
    "users known elsewhere only": ("moved_users", "users"),
    "known items": ("known_item_rows", "rows"),
    "duplicates": ("duplicates", "raw"),
    "merged rows": ("merged", "raw"),
    "rejected rows": ("rejected", "raw"),
    "places as in the last lists": ("kept", "compared"),
    "lists with the most listed item": ("top_item_rows", "lists"),
    "different scores": ("scores", "rows"),
}


@dataclass(frozen=True)
class Delivery:
    """What a night compares. `now`, `past`: figures of the days that are new or have changed, and of the accepted ones;
    `gone`, `closed`: accepted days that left the source, and that had no events; `listed`, `listed_before`: items of
    the catalogue, tonight and when last accepted."""

    run_date: date
    now: Figures
    past: Figures
    gone: Collection[date] = ()
    closed: Collection[date] = ()
    listed: float | None = None
    listed_before: float | None = None


def judge(delivery: Delivery) -> tuple[list[str], str]:
    """(why the delivery is held: nothing if it is not; a note of what was compared)."""
    reasons = [*_silence(delivery), *_past(delivery)]
    newest = max((day for day, _ in delivery.past), default=delivery.run_date)
    new = sorted({day for day, _ in delivery.now if day > newest - timedelta(days=RECENT)})[-RECENT:]
    kept = {key: x for key, x in delivery.past.items() if key not in delivery.now and x.get("raw") != 0}
    kept |= {key: x for key, x in delivery.now.items() if key[0] in new}
    found, compared = compare(kept, new)
    reasons += found
    listed, before = delivery.listed, delivery.listed_before
    if listed is not None and before is not None and listed < (1 - UNLISTED) * before:
        reasons.append(f"catalogue: {listed:,.0f} items, {before:,.0f} before; at least {(1 - UNLISTED):.0%} expected")
    past = len({day for day, _ in delivery.past})
    few = "; too little history to compare figures" if not compared and new else ""
    return reasons, f"{len(new)} days, {compared} figures compared with {past} days{few}"


def compare(figures: Figures, new: Collection[date]) -> tuple[list[str], int]:
    """(the figures of the new days that lie outside their bands, as text; how many were compared)."""
    if not new:
        return [], 0
    by_number = {(as_of_day(day), scenario): x for (day, scenario), x in figures.items()}
    found, compared = bands.outside(bands.panel(by_number, measures(figures)), {as_of_day(day) for day in new})
    return [_text(one) for one in found], compared


def measures(figures: Figures) -> list[Measure]:
    """What is compared: every figure that some day has."""
    keys = {key for x in figures.values() for key in x}
    found = [Measure(name, COUNT, name) for name in _COUNTS if name in keys]
    found += [Measure(name, SHARE, figure, of) for name, (figure, of) in _SHARES.items() if figure in keys]
    events = {key.removesuffix(EVENT_ROWS) for key in keys if key.endswith(EVENT_ROWS)}
    for key in sorted(keys):
        name, mark, kind = key.rpartition(":")
        n = name + N
        if key.startswith(OF_SOURCE):
            found.append(Measure(f"places from {key.removeprefix(OF_SOURCE)}", SHARE, key, "rows"))
        elif mark + kind in (MIDDLE, LOW):
            found.append(Measure(f"{name} ({kind})", NUMBER, key, n, name + OF_SPREAD))
        elif mark + kind == OF_SPREAD:
            found.append(Measure(f"{name} ({kind})", SPREAD, key, n))
        elif mark + kind == N:
            event = max((one for one in events if name.startswith(f"{one} ")), key=len)
            found.append(Measure(f"rows with {name}", SHARE, key, event + EVENT_ROWS))
        elif mark + kind == EVENT_ROWS:
            found.append(Measure(f"share of {name}", SHARE, key, "rows"))
    return found


def judge_lists(
    run_date: date, now: Mapping[str, Mapping[str, float]], past: Figures, last: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Why lists with these figures are held: nothing if they are not. `last`: figures of the last published ones."""
    reasons = []
    for name, x in sorted(now.items()):
        share = x["constant"] / x["lists"]
        if x["lists"] >= bands.LEAST and share > 0.5 and last.get(name, {}).get("constant", 0) / x["lists"] <= 0.5:
            reasons.append(f"constant score, {name}: in {share:.0%} of {x['lists']:,.0f} lists; expected in none")
    return reasons + compare({**past, **{(run_date, name): x for name, x in now.items()}}, [run_date])[0]


def _text(one: bands.Finding) -> str:
    where = "all scenarios" if one.scenario == ALL else one.scenario
    day = EPOCH + timedelta(days=one.day)
    return f"{one.name}, {where}, {day}: {one.found:.4g}, expected {one.low:.4g} to {one.high:.4g}"


def _silence(delivery: Delivery) -> list[str]:
    """The newest day is not the one before the night, though such days had events lately."""
    last = delivery.run_date - timedelta(days=1)
    closed = set(delivery.closed)
    days = {day for day, name in {*delivery.past, *delivery.now} if name == ALL} - closed - set(delivery.gone)
    newest = max(days, default=last)
    first = newest - timedelta(days=OPEN_DAYS - 1)
    if newest >= last or min(days) > first:
        return []
    window = [first + timedelta(days=n) for n in range(OPEN_DAYS)]
    open_days = [day for day in window if day in days]
    usual = {w for w in range(7) if sum(day.weekday() == w for day in open_days) > OPEN_DAYS / 14}
    missing = [newest + timedelta(days=n) for n in range(1, (last - newest).days + 1)]
    unusual = [day for day in (*window, *missing) if day.weekday() in usual and day not in days]
    new = [day for day in unusual if day > newest and day not in closed]
    before = [day for day in unusual if new and day < new[0]]
    if not new or len(before) > HOLIDAYS or any(day >= new[0] - timedelta(days=RECENT) for day in before):
        return []
    return [f"newest day: {newest}; expected {last}, since on a {new[0]:%A} there usually are events"]


def _past(delivery: Delivery) -> list[str]:
    """Days that vanished or lost their rows, and scenarios whose past changed."""
    past, now = delivery.past, delivery.now
    gone = set(delivery.gone)
    changed = sorted({day for day, name in now if name == ALL and (day, name) in past} | gone)
    reasons = []
    for day in changed:
        old, new = (figures.get((day, ALL), {}).get("raw", 0.0) for figures in (past, now))
        if day in gone or (new < LOST * old and old >= bands.LEAST):
            reasons.append(f"raw rows, all scenarios, {day}: {new:,.0f}; {old:,.0f} before")
    for name in sorted({name for _, name in (*past, *now)} - {ALL}):
        total = sum(x.get("rows", 0.0) for (_, other), x in past.items() if other == name)
        moved = sum(abs(_rows(now, day, name) - _rows(past, day, name)) for day in changed)
        if moved > CHANGED * total and moved >= bands.LEAST:
            reasons.append(f"past rows, {name}: {moved:,.0f} added or removed; {total:,.0f} before")
    return reasons


def _rows(figures: Figures, day: date, scenario: str) -> float:
    return figures.get((day, scenario), {}).get("rows", 0.0)
