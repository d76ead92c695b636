"""The wording of reasons: what may be said of which source."""

import pytest

from recspark.config.load import load
from recspark.config.reasons import TEMPLATES, checked
from recspark.config.retrievers import RETRIEVERS
from recspark.errors import ConfigError
from recspark.tables.candidates import GIVEN, REPEAT


def test_every_source_has_its_words() -> None:
    assert set(TEMPLATES) == {*RETRIEVERS, REPEAT, GIVEN, "without_item"}
    checked(TEMPLATES)
    checked({"linear": "for you", "content": "in {scenario} as {item}, {item}"})


@pytest.mark.parametrize(
    ("reasons", "message"),
    [
        ({"linaer": "x"}, r"no source `linaer`; did you mean linear\?"),
        ({"xyz": "x"}, r"no source `xyz`; expected one of linear, "),
        ({"linear": "as {itme}"}, r"linear: found 'as {itme}', expected a text with {item} or {scenario}, or without"),
        ({"linear": "as {item"}, "linear: found"),
        ({"linear": " "}, "linear: found ' '"),
        ({"popular": "as {item}"}, r"popular: found 'as {item}', expected a text with {scenario}, or without"),
    ],
)
def test_mistakes_name_the_source(reasons: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(reasons)


def test_a_mistake_is_one_of_the_configuration(tmp_path) -> None:
    source = "{format: csv, paths: [x], scenario: s, user_id: u, item_id: i, event_time: t}"
    file = tmp_path / "conf.yaml"
    file.write_text(f"warehouse: w\nsource: {{interactions: {source}}}\nrecommendations: {{reasons: {{linaer: x}}}}\n")
    with pytest.raises(ConfigError, match=r"`recommendations.reasons`: found .*, no source `linaer`; did you mean lin"):
        load(str(file))
