"""What erasing leaves behind: days that count as unchanged, and tables with old versions."""

from datetime import datetime, timedelta, timezone

from recspark.warehouse import erased


def test_a_day_that_lost_a_user_counts_as_it_was_until_it_changes_otherwise(tmp_path):
    place = str(tmp_path)
    before = {"2024-01-01": "5:50", "2024-01-02": "2:20", "2024-01-03": "7:70"}
    assert erased.as_before(place, "interactions", before) == before  # nothing was erased yet
    erased.changed(
        place, "interactions", {day: before[day] for day in ("2024-01-01", "2024-01-02")}, {"2024-01-01": "4:41"}
    )
    now = {"2024-01-01": "4:41", "2024-01-03": "7:70"}  # the second day had no other user
    assert erased.as_before(place, "interactions", now) == before
    assert erased.as_before(place, "items", now) == now
    late = {**now, "2024-01-01": "5:43", "2024-01-02": "1:9"}  # a late event, and one on the day that was empty
    assert erased.as_before(place, "interactions", late) == late
    # a second user of the first day
    erased.changed(place, "interactions", {"2024-01-01": "4:41"}, {"2024-01-01": "3:35"})
    assert erased.as_before(place, "interactions", {**now, "2024-01-01": "3:35"}) == before


def test_old_versions_are_due_when_nothing_newer_was_erased(tmp_path):
    place, then = str(tmp_path), datetime(2024, 5, 1, 2, tzinfo=timezone.utc)
    assert erased.due(place, 0) == []
    erased.keep_in_mind(place, ["candidates", "interactions"], then)
    erased.keep_in_mind(place, ["interactions"], then + timedelta(hours=3))
    assert erased.due(place, 24, then + timedelta(hours=24)) == ["candidates"]
    assert erased.due(place, 24, then + timedelta(hours=27)) == ["candidates", "interactions"]
    erased.done(place, "candidates")
    assert erased.due(place, 24, then + timedelta(hours=27)) == ["interactions"]
