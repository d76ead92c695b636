"""Given features on disk, by id and date, and their codes; expected values by hand."""

from pathlib import Path

import numpy as np
import pytest

from recspark import given_features as gf
from recspark import model_folder
from recspark.given_features import FIRST_BUCKET, FIRST_KNOWN, IDS_A_SHARD, MISSING, Coding, FeatureBook, Names, Values

NAMES = {"users": Names(("age",), ("city",), ()), "items": Names((), (), ("tags",))}


def values(numbers: list[float], texts: list[list[int]]) -> Values:
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in texts])))
    flat = np.array([text for one in texts for text in one], np.int64)
    return Values(np.array(numbers, np.float32).reshape(len(texts), -1), (offsets,), (flat,))


@pytest.fixture()
def folder(tmp_path: Path) -> str:
    """Users 7 (age 70, city 11), 3 (no age, no city) and one of the second shard; items 1 (tags 5, 6) and 0 (none)."""
    place = str(tmp_path / "of_day_1")
    gf.save_shard(place, "users", 0, np.array([7, 3]), values([70, np.nan], [[11], []]))
    gf.save_shard(place, "users", 1, np.array([IDS_A_SHARD + 2]), values([20], [[12]]))
    gf.save_shard(place, "items", 0, np.array([1, 0]), values([], [[5, 6], []]))
    gf.finish(place, NAMES, {"users": [0, 1], "items": [0]})
    return place


def texts(found: Values) -> list[list[int]]:
    return [part.tolist() for part in np.split(found.values[0], found.offsets[0][1:-1])]


def test_what_was_saved_is_found_by_id_and_the_rest_is_unknown(folder: str) -> None:
    ids = np.array([3, 7, -1, IDS_A_SHARD + 2, 7, 9 * IDS_A_SHARD], np.int32)
    found = FeatureBook({1: folder}).look_up("users", ids, np.full(6, 1))
    np.testing.assert_array_equal(found.numbers[:, 0], [np.nan, 70, np.nan, 20, 70, np.nan])
    assert texts(found) == [[], [11], [], [12], [11], []]
    assert texts(FeatureBook({1: folder}).look_up("items", np.array([1, 0, 1]), np.ones(3))) == [[5, 6], [], [5, 6]]


def test_every_row_has_the_values_of_its_date(folder: str, tmp_path: Path) -> None:
    later = str(tmp_path / "of_day_2")
    gf.save_shard(later, "users", 0, np.array([7]), values([71], [[13]]))
    gf.finish(later, NAMES, {"users": [0], "items": []})
    book = FeatureBook({1: folder, 2: later})
    found = book.look_up("users", np.array([7, 7, 3]), np.array([2, 1, 2]))
    np.testing.assert_array_equal(found.numbers[:, 0], [71, 70, np.nan])
    assert texts(found) == [[13], [11], []]
    assert texts(book.look_up("items", np.array([1]), np.array([2]))) == [[]]  # no item is known then


def test_a_folder_without_manifest_is_none(folder: str) -> None:
    assert gf.names_in(folder) == NAMES
    model_folder.remove(folder)
    assert not model_folder.exists(folder)


def test_codes_by_hand(folder: str) -> None:
    """City 11 is known, 12 is not: its bucket is 12 % 16. Of the tags 6 is known, the second of {4, 6}."""
    book = FeatureBook({1: folder})
    coding = Coding(NAMES, (np.array([11]), np.array([4, 6])), (np.array([]), np.array([FIRST_KNOWN + 1])))
    users, items = np.array([7, 3, IDS_A_SHARD + 2]), np.array([1, 0, 1])
    numbers, codes = gf.numbers_and_codes(book, coding, users, items, np.full(3, 1))
    np.testing.assert_array_equal(numbers[:, 0], [70, np.nan, 20])
    assert codes.shape == (3, 2, gf.MOST_TEXTS) and not codes[:, :, 2:].any()
    assert codes[:, 0, :2].tolist() == [[FIRST_KNOWN, 0], [MISSING, 0], [FIRST_BUCKET + 12, 0]]
    assert codes[:, 1, :2].tolist() == [
        [FIRST_BUCKET + 5, FIRST_KNOWN + 1],
        [MISSING, 0],
        [FIRST_BUCKET + 5, FIRST_KNOWN + 1],
    ]
    assert coding.numbers == ("user_age",) and coding.texts == ("user_city", "item_tags")
    names, categories = gf.tree_names(coding)
    assert names == ("given_user_age", "given_user_city", "given_item_tags_0") and categories == ("given_user_city",)
    expected = [[70, FIRST_KNOWN, 1], [np.nan, np.nan, 0], [20, FIRST_BUCKET + 12, 1]]
    np.testing.assert_array_equal(gf.tree_columns(coding, numbers, codes), expected)


def test_a_text_is_known_by_the_ids_that_have_it_not_by_their_rows(tmp_path: Path) -> None:
    """City 1 has MIN_IDS users, 2 one less; user 0 alone, of city 3, has a thousand rows."""
    cities = [3, *[1] * gf.MIN_IDS, *[2] * (gf.MIN_IDS - 1)]
    users = np.arange(len(cities))
    gf.save_shard(str(tmp_path), "users", 0, users, values([*users], [[city] for city in cities]))
    gf.finish(str(tmp_path), {**NAMES, "items": Names()}, {"users": [0], "items": []})
    rows = np.concatenate((users, np.zeros(1000, int)))
    coding = gf.fit_coding(FeatureBook({1: str(tmp_path)}), rows, rows, np.full(len(rows), 1))
    assert [one.tolist() for one in coding.known] == [[1]] and [one.tolist() for one in coding.top] == [[]]


def test_a_list_has_its_most_frequent_texts_first(tmp_path: Path) -> None:
    """Tag 9 is of ten items, tag 8 of six, tag 7 of two."""
    tags = [[text for text, size in ((9, 10), (8, 6), (7, 2)) if n < size] for n in range(10)]
    gf.save_shard(str(tmp_path), "items", 0, np.arange(10), values([], tags))
    gf.finish(str(tmp_path), {**NAMES, "users": Names()}, {"users": [], "items": [0]})
    items = np.arange(10)
    coding = gf.fit_coding(FeatureBook({1: str(tmp_path)}), items, items, np.full(10, 1))
    assert [one.tolist() for one in coding.known] == [[8, 9]]
    assert [one.tolist() for one in coding.top] == [[FIRST_KNOWN + 1, FIRST_KNOWN]]
    manifest, arrays = gf.to_arrays(coding)
    again = gf.from_arrays(manifest, arrays.__getitem__)
    assert again.names == coding.names
    for one, other in ((again.known, coding.known), (again.top, coding.top)):
        np.testing.assert_array_equal(one, other)


def test_erased_users_have_nothing_and_the_others_all(folder: str) -> None:
    far = IDS_A_SHARD + 2
    assert gf.erase_users(folder, np.array([7, far + 1])) == 1  # far + 1 has nothing
    book = FeatureBook({1: folder})
    found = book.look_up("users", np.array([7, 3, far]), np.full(3, 1))
    np.testing.assert_array_equal(found.numbers[:, 0], [np.nan, np.nan, 20])
    assert texts(found) == [[], [], [12]] and gf.erase_users(folder, np.array([7])) == 0
    assert 11 not in model_folder.open_array(f"{folder}/users/shard-0", "values_0")
    assert model_folder.read_manifest(f"{folder}/users/shard-0")["ids"] == 1


def test_negative_hashes_have_buckets_too(folder: str, tmp_path: Path) -> None:
    gf.save_shard(str(tmp_path / "n"), "users", 0, np.array([0]), values([1], [[-5]]))
    gf.finish(str(tmp_path / "n"), {**NAMES, "items": Names()}, {"users": [0], "items": []})
    coding = Coding({**NAMES, "items": Names()}, (np.array([], np.int64),), (np.array([]),))
    book = FeatureBook({1: str(tmp_path / "n")})
    _, codes = gf.numbers_and_codes(book, coding, np.array([0]), np.array([0]), np.array([1]))
    assert codes.tolist() == [[[FIRST_BUCKET + 11]]]  # -5 % 16
