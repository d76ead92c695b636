"""A planted shop: what every user would choose is a formula, so the best possible list is known.

NUM_TASTES tastes share nothing. An item of a taste is launched on a day and fades: its appeal at age a (days) is
2^(-a / FADING_DAYS) + FLOOR. Each taste has some items from the first day, and gets one more every LAUNCH_DAYS: drift.
A user has one taste, a rich or a poor scenario, and now and then takes an item not taken before: with probability
1 - NOISE one of its taste by appeal, else any item that is there. COLD of the users of the days after `RUN_DATE` had
never come before. Both scenarios have the same tastes and items: what the poor one needs is known from the rich one.

The oracle's score of an item for a user on RUN_DATE: (1 - NOISE) x appeal / sum of appeals in the user's taste, if it
is of that taste, + NOISE / number of items. For a user whom nobody knows: the mean of that over the tastes.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np

RUN_DATE = date(2024, 3, 4)  # a Monday
DAYS, HORIZON = 224, 28
NUM_TASTES, FIRST_ITEMS, LAUNCH_DAYS = 6, 16, 21
FADING_DAYS, FLOOR, NOISE, COLD = 60.0, 0.1, 0.1, 0.2
USERS = {"rich": 360, "poor": 60}
EVERY_DAYS = 12.0  # between two events of a user
K = 10


@dataclass(frozen=True)
class Shop:
    """`taste`, `launch` (I,): of each item; days count from RUN_DATE - DAYS. `events`: (scenario, user, item, day), of
    all days; `taste_of`: user -> taste; `cold`: users whose first event is not before RUN_DATE."""

    taste: np.ndarray
    launch: np.ndarray
    events: list[tuple[str, str, int, float]]
    taste_of: dict[str, int]
    cold: frozenset[str]


def shop(seed: int) -> Shop:
    rng = np.random.default_rng(seed)
    launches = [0] * FIRST_ITEMS + list(range(LAUNCH_DAYS, DAYS + HORIZON, LAUNCH_DAYS))
    taste = np.repeat(np.arange(NUM_TASTES), len(launches))
    launch = np.tile(launches, NUM_TASTES).astype(float)
    launch += np.where(launch > 0, rng.integers(-7, 8, len(launch)), 0)
    events, taste_of, cold = [], {}, set()
    for scenario, num_users in USERS.items():
        for n in range(num_users):
            user, own = f"{scenario}-{n:03d}", int(rng.integers(NUM_TASTES))
            taste_of[user] = own
            is_cold = n < COLD * num_users
            day, had = (float(DAYS) if is_cold else rng.uniform(0, 60)), set()
            if is_cold:
                cold.add(user)
                day += rng.uniform(0, 14)
            while day < DAYS + HORIZON:
                item = choice(rng, taste, launch, own, day, had)
                if item >= 0:
                    had.add(item)
                    events.append((scenario, user, item, day))
                day += rng.exponential(EVERY_DAYS)
    return Shop(taste, launch, events, taste_of, frozenset(cold))


def choice(rng: np.random.Generator, taste: np.ndarray, launch: np.ndarray, own: int, day: float, had: set[int]) -> int:
    """The item that a user takes on a day; -1 if none is left."""
    chances = probabilities(taste, launch, own, day)
    chances[list(had)] = 0.0
    total = chances.sum()
    return int(rng.choice(len(chances), p=chances / total)) if total > 0 else -1


def probabilities(taste: np.ndarray, launch: np.ndarray, own: int, day: float) -> np.ndarray:
    """The oracle's score of every item on a day, float64 (I,): see the top."""
    there = launch <= day
    appeal = np.where(there, 2.0 ** (-np.maximum(day - launch, 0.0) / FADING_DAYS) + FLOOR, 0.0)
    mine = np.where(taste == own, appeal, 0.0)
    return (1 - NOISE) * mine / max(mine.sum(), 1e-12) + NOISE * there / max(there.sum(), 1)


def rows(world: Shop) -> list[tuple[str, str, str, datetime]]:
    """(scenario, user, item, time) of the events before RUN_DATE, as raw rows."""
    start = datetime.combine(RUN_DATE - timedelta(days=DAYS), datetime.min.time())
    return [(s, u, f"item-{i:03d}", start + timedelta(days=day)) for s, u, i, day in world.events if day < DAYS]


def done(world: Shop) -> dict[tuple[str, str], set[int]]:
    """(scenario, user) -> the items taken from RUN_DATE on."""
    found: dict[tuple[str, str], set[int]] = {}
    for scenario, user, item, day in world.events:
        if day >= DAYS:
            found.setdefault((scenario, user), set()).add(item)
    return found


def seen(world: Shop) -> dict[str, set[int]]:
    """user -> the items taken before RUN_DATE."""
    found: dict[str, set[int]] = {}
    for _, user, item, day in world.events:
        if day < DAYS:
            found.setdefault(user, set()).add(item)
    return found


def oracle(world: Shop, user: str, had: set[int]) -> list[int]:
    """The best list: items of the highest score that the user has not taken."""
    tastes = range(NUM_TASTES) if user in world.cold else (world.taste_of[user],)
    scores = np.mean([probabilities(world.taste, world.launch, own, float(DAYS)) for own in tastes], axis=0)
    return best(scores, had)


def popular(world: Shop, scenario: str, had: set[int]) -> list[int]:
    """The items most taken in a scenario in the last 28 days, that the user has not taken."""
    recent = [item for s, _, item, day in world.events if s == scenario and DAYS - 28 <= day < DAYS]
    return best(np.bincount(recent, minlength=len(world.taste)).astype(float), had)


def best(scores: np.ndarray, had: set[int]) -> list[int]:
    return [int(item) for item in np.argsort(-scores, kind="stable") if item not in had][:K]


def ndcg(found: list[int], wanted: set[int]) -> float:
    """Binary NDCG@K of one list."""
    gain = sum(1 / np.log2(rank + 2) for rank, item in enumerate(found[:K]) if item in wanted)
    return float(gain / sum(1 / np.log2(rank + 2) for rank in range(min(len(wanted), K))))
