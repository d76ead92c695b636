"""What a race counts as a fault, and one short race of each storage without any."""

import pytest

from benchmarks.night import lease_races, races


def held(number: int, at: float) -> dict[str, object]:
    return {"what": "held", "number": number, "at": at}


def checked(number: int, at: float) -> dict[str, object]:
    return {"what": "checked", "number": number, "at": at}


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        ([held(1, 0.0), checked(1, 1.0), held(2, 2.0), checked(2, 3.0)], 0),
        ([held(1, 0.0), held(1, 0.5)], 1),  # two holders of one number
        ([held(1, 0.0), held(2, 2.0), checked(1, 2.5)], 1),  # passed a check after it had lost the lease
        ([held(1, 0.0), held(3, 2.0), checked(1, 1.9), checked(1, 2.1), checked(1, 2.2)], 2),
        ([held(1, 0.0), held(2, 1.0), held(3, 2.0), checked(1, 1.5)], 1),  # the next holder counts, not the last
        ([held(1, 0.0), held(2, 3.0), held(3, 2.0), checked(1, 2.5)], 1),  # whichever of them was seen first
        ([{"what": "over"}], 0),
    ],
)
def test_faults_of_a_race(lines: list[dict[str, object]], faults: int) -> None:
    assert lease_races.faults(lines) == faults


@pytest.mark.parametrize("storage", lease_races.STORAGES)
def test_a_short_race_has_no_fault(storage: str) -> None:
    found = lease_races.race(storage, 3, 2.0, seed=0)
    assert found["held"] > 0 and found["faults"] == 0


IN_USE = "error: warehouse /w is in use by run 2011-x (process 7 on vm, starting, last progress 0 s before"


@pytest.mark.parametrize(
    ("codes", "logs", "wrong"),
    [
        ((0, 4), ("{}", IN_USE), 0),
        ((4, 0), ("error: run 2011-x lost the lease of /w/_lease to another", ""), 0),
        ((4, 4), (IN_USE, IN_USE), 1),  # nobody did it
        ((0, 1), ("{}", "error: OSError: full"), 1),
        ((0, 4), ("{}", "error: no source"), 1),  # the right code for another reason
    ],
)
def test_what_is_told_wrongly(codes: tuple[int, ...], logs: tuple[str, ...], wrong: int) -> None:
    assert len(races.told_wrongly(codes, logs)) == wrong
