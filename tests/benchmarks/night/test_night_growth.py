"""The generated shop and the exponents, without a night."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.night import night_growth
from recspark.errors import ConfigError


def test_the_shop_is_as_it_says(tmp_path: Path) -> None:
    night_growth.write_events(tmp_path / "e.parquet", users=400, items=100, scenarios=5)
    rows = pd.read_parquet(tmp_path / "e.parquet")
    assert len(rows) == 400 * night_growth.EVENTS_A_USER
    assert set(rows["shop"]) == {f"s{n}" for n in range(5)} and set(rows["what"]) <= {f"i{n}" for n in range(100)}
    sizes = rows["what"].value_counts()
    assert sizes.iloc[0] > 5 * sizes.median()
    assert rows["at"].min() >= pd.Timestamp(night_growth.FIRST_DAY)
    assert rows["at"].max() < pd.Timestamp(night_growth.RUN_DATE)
    home = rows["who"].str[1:].astype(int) % 5
    elsewhere = (rows["shop"] != "s" + home.astype(str)).mean()
    assert elsewhere == pytest.approx(night_growth.ELSEWHERE * 4 / 5, abs=0.02)
    assert rows["who"].nunique() > 390


def test_exponents_by_hand() -> None:
    """Ten times the users: `linear` takes ten times as long, `root` the root of ten, `skipped` nothing."""

    def night(users: int, seconds: float, **stages: float) -> dict[str, object]:
        return {"sizes": {**night_growth.BASE, "users": users}, "seconds": seconds, "stages": stages}

    small = night(20_000, 10.0, linear=2.0, root=1.0, skipped=0.0)
    large = night(200_000, 1000.0, linear=20.0, root=float(np.sqrt(10)), skipped=0.0)
    found = [night(2_000, 9.0, linear=1.0, root=1.0, skipped=0.0), large, small]
    assert night_growth.exponents(found, "users") == {"linear": 1.0, "root": 0.5, "seconds": 2.0}
    assert night_growth.exponents(found, "items") == {}


def test_every_size_of_every_axis_is_run_once() -> None:
    nights = night_growth.all_nights()
    assert len(nights) == 7 and nights.count(night_growth.BASE) == 1
    for axis, sizes in night_growth.SIZES.items():
        others = {name: size for name, size in night_growth.BASE.items() if name != axis}
        assert all({**others, axis: size} in nights for size in sizes)


@pytest.mark.parametrize("given", ["user=5", "users", "users=many", "users=0"])
def test_a_wrong_size_is_told(given: str, tmp_path: Path) -> None:
    assert night_growth.axis_and_size("users=5") == ("users", 5)
    with pytest.raises(ConfigError, match=f"--set {given}: expected AXIS=SIZE, one of users, items, scenarios"):
        night_growth.run("", 1, False, str(tmp_path), (given,))
