"""Each variant's night starts from a copy of the default one, and the report by hand."""

from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.night import night_modes, night_quality
from recspark.config.load import load
from tests.paths import CONF

DAY = date(2011, 9, 1)
WANTED = pd.DataFrame({"scenario": ["uk", "fr"], "user_id": ["u", "v"], "item_id": ["a", "b"]})


def lists(*ranks: int) -> pd.DataFrame:
    """The wanted items at these ranks."""
    return WANTED.assign(rank=list(ranks))


def test_each_variant_is_a_night_on_a_copy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[tuple[str, ...], Path] = {}

    def night(yaml: str, sets: tuple[str, ...], folder: Path, run_date: date, seed: int) -> dict[str, Any]:
        asked[sets[1:]] = folder
        assert (folder / "2011-09-01-0" / "warehouse" / "table").read_text() == "built"
        mode = "ranker_alone" if "transfer" in str(sets) else "ranker"
        return {"published": lists(1, 2), "modes": {mode: lists(1, 3), "linear": lists(1, 1)}, "chosen": {"uk": mode}}

    (tmp_path / "2011-09-01-0" / "warehouse").mkdir(parents=True)
    (tmp_path / "2011-09-01-0" / "warehouse" / "table").write_text("built")
    monkeypatch.setattr(night_quality, "night", night)
    monkeypatch.setattr(night_quality, "truth", lambda *_: WANTED)
    events = pd.DataFrame({"day": [0.0]})
    found = night_modes.of_date(CONF, ("seed=0",), load(CONF), tmp_path, DAY, events, 28)
    assert asked[()] == tmp_path and asked[("ranker.model=mmoe",)] == tmp_path / "modes" / "mmoe"
    assert len(asked) == 1 + len(night_modes.BODIES) + 1
    assert all(load(CONF, sets).ranker for sets in asked)  # every variant is a valid configuration
    assert found["mmoe: ranker"].mean() == pytest.approx((1 + 1 / 2) / 2)  # rank 3: 1 / log2(4)
    assert found.attrs["chosen"]["transfers: ranker_alone"] == 1 and "mmoe: linear" not in found


def test_the_report_compares_with_the_same_mode_of_the_default_night(capsys: pytest.CaptureFixture[str]) -> None:
    names = {"shared_bottom: ranker": [0.2, 0.4], "mmoe: ranker": [0.3, 0.5], "transfers: ranker_alone": [0.1, 0.3]}
    names |= {"shared_bottom: blend": [0.5, 0.5], "mmoe: blend": [0.6, 0.6]}
    index = pd.MultiIndex.from_tuples([("uk", "u", "d"), ("fr", "v", "d")], names=["scenario", "user_id", "run_date"])
    found = night_modes.report(pd.DataFrame(names, index=index), dict.fromkeys(names, 1))["modes"]
    assert found["mmoe: ranker"] == {"ndcg@10": 0.4, "gain": [0.1, 0.1, 0.1], "chosen": 1}
    assert found["mmoe: blend"]["gain"] == [0.1, 0.1, 0.1]  # over blend, not over ranker
    assert found["transfers: ranker_alone"]["gain"][0] == -0.1  # over the default ranker
    assert "mmoe: ranker" in capsys.readouterr().out
