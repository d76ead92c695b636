"""YAML to types: what is unknown, missing or wrong is named by its dotted key."""

import re
from datetime import date
from pathlib import Path
from typing import get_args

import pytest

from recspark.config.load import load
from recspark.config.rankers import Ranker
from recspark.config.schema import Config
from recspark.errors import ConfigError

TASKS = "training_examples.tasks"
CONF = sorted(Path("conf").glob("*.yaml"))
MINIMAL = """
warehouse: w
source:
  interactions: {format: csv, paths: [a.csv], scenario: s, user_id: u, item_id: i, event_time: t}
"""


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text(MINIMAL)
    return str(path)


@pytest.mark.parametrize("path", CONF, ids=lambda p: p.stem)
def test_shipped_files_load(path):
    config = load(str(path))
    assert config.warehouse == f"warehouse/{path.stem}"
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("# ") and f"conf/{path.name}" in path.read_text().split("warehouse:")[0] and second


def test_there_are_shipped_files():
    assert {"online_retail", "xmarket", "amazon_beauty_electronics"} <= {path.stem for path in CONF}


def test_overrides_are_yaml_and_make_sections(minimal):
    config = load(minimal, ("scenarios.min_users=5", "source.interactions.paths=[b.csv, c.csv]", "run_date=2024-01-02"))
    assert config.scenarios.min_users == 5
    assert config.source.interactions.paths == ("b.csv", "c.csv")
    assert config.run_date == date(2024, 1, 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scenarois.min_users=5", r"unknown key `scenarois`, did you mean `scenarios`\?"),
        ("scenarios.min_user=5", r"unknown key `scenarios\.min_user`, did you mean `min_users`\?"),
        ("source.interactions.usr_id=x", r"unknown key `source\.interactions\.usr_id`, did you mean `user_id`\?"),
        ("source.items.format=csv", r"required key `source\.items\.item_id` is missing"),
        ("source.items={format: csv, paths: [x], item_id: i, txt: t}", r"`source\.items\.txt`, did you mean `text`\?"),
        ("scenarios.overrides={de: {sene: allow}}", r"`scenarios\.overrides\.de\.sene`, did you mean `seen`\?"),
        ("training_examples.tasks=[{nam: x}]", r"key `training_examples\.tasks\.0\.nam`, did you mean `name`\?"),
        ("scenarios.min_users=many", r"`scenarios\.min_users`: found 'many', "),
        (
            "interactions.event_weights={a: [1]}",
            r"`interactions\.event_weights`: .* a: found \[1\], expected a num",
        ),
        ("interactions.event_weights={a: .nan}", r"a: found nan, expected a number, or Spark SQL"),
        ("interactions.event_weights={a: ''}", r"a: found '', expected a number, or Spark SQL"),
        ("scenarios.default={boost: [{where: x, factor: 0}]}", r"`scenarios\.default\.boost\.0\.factor`: found 0, "),
        (
            "scenarios.default={pin: [{where: x, rank: 2}, {where: y, rank: 2}]}",
            "two pins have the rank 2; give each a pl",
        ),
        (
            "scenarios.default={pin: [{where: x, rank: 11}]}",
            r"scenarios\.default\.pin: found rank 11, expected at most rec",
        ),
        (
            "scenarios.default={pin: [{were: x, rank: 1}]}",
            r"`scenarios\.default\.pin\.0\.were`, did you mean `where`\?",
        ),
        ("source.interactions.format=xml", r"`source\.interactions\.format`: found 'xml', "),
        ("source.interactions.paths=[]", r"every other format needs `paths: \[\.\.\.\]`"),
        ("source.interactions.format=table", r"`table` needs `table: catalog\.schema\.name`"),
        ("ranker.model=mmeo", r"`ranker\.model`: found 'mmeo', "),
        (f"{TASKS}=[{{name: a, kind: binary, sql: x, given: b}}]", "task a: given b, expected another binary task"),
        (f"{TASKS}=[{{name: a, kind: binary, sql: x, given: a}}]", "task a: given a, expected another .* no circle"),
        (f"{TASKS}=[{{name: a, kind: binary, sql: x}}, {{name: b, kind: regression, sql: x, given: a}}]", "b: given a"),
        (f"{TASKS}=[{{name: a, kind: multilabel, sql: x}}]", r"kind multilabel needs `labels: \{name: sql\}`"),
        (
            "source.users={format: csv, paths: [x], user_id: u}",
            r"`source\.users`: .* neither `scenario` nor `features`",
        ),
        ("source.users.features.age={kind: text, sql: x}", r"`source\.users\.features\.age\.kind`: found 'text', "),
        ("source.items.features={Age x: {kind: number, sql: x}}", r"`source\.items\.features\.Age x\.\[key\]`: "),
        ("warehouse.x=1", "`warehouse` is a value, not a section"),
        ("warehouse", r"expected dotted\.key=value"),
        ("warehouse=[", "the value is not YAML"),
    ],
)
def test_mistakes_name_the_key(minimal, override, message):
    with pytest.raises(ConfigError, match=message):
        load(minimal, (override,))


def test_files_that_are_not_there_or_no_yaml(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml does not exist"):
        load(str(tmp_path / "nowhere.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml is not YAML"):
        load(str(tmp_path / "bad.yaml"))
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(ConfigError, match="holds list, expected sections"):
        load(str(tmp_path / "list.yaml"))


def test_digest_is_that_of_the_named_sections(minimal):
    base, other = load(minimal), load(minimal, ("scenarios.min_users=5",))
    assert base.digest("source", "interactions") == other.digest("source", "interactions")
    assert base.digest("scenarios") != other.digest("scenarios")


def test_features_are_read_by_an_artefact_of_their_own(minimal):
    """A new feature changes neither the items nor whose lists there are."""
    users = "source.users={format: csv, paths: [x], scenario: s, user_id: u}"
    plain = load(minimal, (users,))
    other = load(minimal, (users, "source.users.features={features: {kind: category, sql: x}}"))
    assert plain.digest("source.users") == other.digest("source.users")
    assert plain.digest("source.users.features") != other.digest("source.users.features")
    assert [one.source.has_features for one in (load(minimal), plain, other)] == [False, False, True]


def test_users_with_features_alone_get_no_list(minimal):
    features = "features: {age: {kind: number, sql: age}}"
    known = load(minimal, (f"source.users={{format: csv, paths: [x], user_id: u, {features}}}",))
    assert known.source.users is not None and known.source.users_with_lists is None
    listed = load(minimal, ("source.users={format: csv, paths: [x], user_id: u, scenario: s}",))
    assert listed.source.users_with_lists == listed.source.users is not None


def test_a_weight_is_a_number_or_sql(minimal):
    """A number in quotes is a number: as SQL, -1 would count as 0."""
    weights = load(minimal, ("interactions.event_weights={a: '-1', b: value - 3, c: 2}",)).interactions.event_weights
    assert weights == {"a": -1.0, "b": "value - 3", "c": 2.0}


def test_scenario_rules(minimal):
    config: Config = load(minimal, ("scenarios.overrides={de: {seen: allow}}",))
    assert (config.scenarios.rule("de").seen, config.scenarios.rule("fr").seen) == ("allow", "exclude")


def test_item_rules_of_a_scenario(minimal):
    rule = "{where: \"attributes['stock'] > 0\", at_most: {items: 2, of: \"attributes['brand']\"}}"
    config = load(minimal, (f"scenarios.overrides.de={rule}",))
    found = config.scenarios.rule("de")
    assert (found.where, found.at_most.items, found.at_most.of) == (
        "attributes['stock'] > 0", 2, "attributes['brand']",
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"`scenarios\.default\.at_most\.items`: found 0, "):
        load(minimal, ("scenarios.default={at_most: {items: 0, of: text}}",))
    with pytest.raises(ConfigError, match=r"unknown key `scenarios\.default\.at_most\.by`; known here: items, of"):
        load(minimal, ("scenarios.default={at_most: {items: 1, of: text, by: text}}",))


def test_item_rules_and_given_candidates_are_no_part_of_the_past(minimal):
    plain, ruled = load(minimal), load(minimal, ("scenarios.overrides={de: {where: text > 'a'}, fr: {seen: allow}}",))
    past = ruled.of_past_dates()
    assert ruled.digest("scenarios") != past.digest("scenarios")
    assert past.scenarios.overrides == {"fr": ruled.scenarios.rule("fr")}
    only = load(minimal, ("scenarios.overrides={de: {at_most: {items: 1, of: text}}}",)).of_past_dates()
    assert only.digest("scenarios") == plain.digest("scenarios")
    moved = "{boost: [{where: text > 'a', factor: 2}], pin: [{where: text > 'a', rank: 1}]}"
    assert load(minimal, (f"scenarios.overrides.de={moved}",)).of_past_dates().scenarios == plain.scenarios
    source = "{format: csv, paths: [b.csv], scenario: s, user_id: u, item_id: i}"
    given = load(minimal, (f"candidates.source={source}",))
    assert given.digest("candidates") != plain.digest("candidates") == given.of_past_dates().digest("candidates")


@pytest.mark.parametrize(
    "rule", ["{where: text > 'a'}", "{at_most: {items: 1, of: text}}", "{pin: [{where: x, rank: 1}]}"]
)
def test_given_candidates_have_no_item_rules(minimal, rule):
    given = "candidates.source={format: csv, paths: [b.csv]}"
    with pytest.raises(ConfigError, match=r"candidates.source: .* found scenarios.overrides.de with `where`, `at_mo"):
        load(minimal, (given, f"scenarios.overrides.de={rule}"))


def test_lists_longer_than_what_is_retrieved(minimal):
    with pytest.raises(ConfigError, match=r"conf.yaml: candidates.depth: found 2, expected at least .*k = 3; raise it"):
        load(minimal, ("candidates.depth=2", "recommendations.k=3"))


def test_which_retrievers_work(minimal):
    assert load(minimal).retriever.names == ("linear", "content", "popular")
    other = load(minimal, ("retriever={linear: null, sequence: {}, co_occurrence: {neighbours: 9}}",)).retriever
    assert other.names == ("co_occurrence", "sequence", "content", "popular")
    assert other.co_occurrence.neighbours == 9


@pytest.mark.parametrize("settings", ["{mode: finetune}", "{mode: joint, target: de}"])
def test_a_target_belongs_to_its_modes(minimal, settings):
    with pytest.raises(ConfigError, match=r"`retriever.sequence`: .* modes `finetune` and `single` need `target"):
        load(minimal, (f"retriever.sequence={settings}",))


def test_a_multilabel_task_is_a_binary_one_a_label(minimal):
    more = "given: look, loss_weight: 2, labels: {cart: a > 0, buy: b > 0}"
    tasks = f"[{{name: look, kind: binary, sql: c > 0}}, {{name: act, kind: multilabel, {more}}}]"
    found = load(minimal, (f"training_examples.tasks={tasks}",)).training_examples.tasks
    assert [(task.name, task.kind, task.sql) for task in found] == [
        ("look", "binary", "c > 0"),
        ("act_cart", "binary", "a > 0"),
        ("act_buy", "binary", "b > 0"),
    ]
    assert [(task.given, task.loss_weight) for task in found] == [(None, 1.0), ("look", 2.0), ("look", 2.0)]


def test_a_funnel_may_rank_by_its_last_step(minimal):
    steps = [("buy", "cart"), ("cart", "view"), ("view", None)]
    tasks = ", ".join(f"{{name: {n}, kind: binary, sql: x, given: {g or 'null'}}}" for n, g in steps)
    found = load(minimal, (f"{TASKS}=[{tasks}]",)).training_examples.tasks
    assert [task.given for task in found] == ["cart", "view", None]


def test_transfers_are_known_and_include_joint(minimal: str) -> None:
    assert load(minimal).ranker.transfer == ("joint",)
    assert load(minimal, ("ranker.transfer=[joint, alone, mmd]",)).ranker.transfer == ("joint", "alone", "mmd")
    for wrong, said in (
        ("ranker.transfer=[alone]", "`joint` among them"),
        ("ranker.transfer=[joint, joint]", "distinct"),
        ("ranker={transfer: [joint, mmd], model: mmoe}", "needs model shared_bottom or attention"),
        ("ranker.transfer=[joint, magic]", "`ranker.transfer.1`: found 'magic'"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            load(minimal, (wrong,))


def test_the_transfers_of_the_configuration_are_those_of_the_trainer() -> None:
    from recspark.training.ranking.transfer import MODES

    named, _ = get_args(Ranker.model_fields["transfer"].annotation)
    assert set(get_args(named)) == set(MODES)


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("warehouse: x\nscenarios: {min_users: 5}\nscenarios: {min_users: 6}\n")
    with pytest.raises(ConfigError, match="line 3: the key scenarios stands in line 2 already"):
        load(str(tmp_path / "a.yaml"))


def test_a_misspelt_key_is_not_also_missing(tmp_path: Path) -> None:
    """The missing one is the misspelt one: told twice, the second line would say to add it."""
    source = "{format: csv, paths: [x], scenario: s, userid: u, item_id: i, event_time: t}"
    (tmp_path / "a.yaml").write_text(f"warehouse: x\nsource: {{interactions: {source}}}\n")
    with pytest.raises(ConfigError, match="did you mean `user_id`") as raised:
        load(str(tmp_path / "a.yaml"))
    assert "missing" not in str(raised.value)


def test_norway_is_no_truth_value(tmp_path: Path, minimal: str) -> None:
    (tmp_path / "a.yaml").write_text("warehouse: x\nscenarios:\n  overrides:\n    NO: {items: own}\n")
    with pytest.raises(ConfigError, match=r'line 4: the key NO is read as false, .*write "NO" in quotes'):
        load(str(tmp_path / "a.yaml"))
    with pytest.raises(ConfigError, match=r"found False, .*put the word in quotes"):
        load(minimal, ("text_adapter={scenarios: [SE, NO]}",))
    assert load(minimal, ('text_adapter={scenarios: [SE, "NO"]}',)).text_adapter is not None


def test_places_are_read_as_a_shell_reads_them(minimal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("RECS", "/data")
    assert load(minimal, ("warehouse=~/recs",)).warehouse == "/home/ann/recs"
    found = load(minimal, ("warehouse=${RECS}/x", "source.interactions.paths=['~/a.csv', '${RECS}/b~.csv']"))
    assert found.warehouse == "/data/x"
    assert found.source.interactions.paths == ("/home/ann/a.csv", "/data/b~.csv")
    with pytest.raises(ConfigError, match=r"`warehouse`: found '\$.NOT_SET./x', the variable NOT_SET is not set"):
        load(minimal, ("warehouse=${NOT_SET}/x",))


@pytest.mark.parametrize("url", ("dbfs:/recs", "hdfs:/recs", "gs:/recs"))
def test_a_url_with_one_slash_is_refused(minimal: str, url: str) -> None:
    with pytest.raises(ConfigError, match=f"write an URL with two slashes: {url.replace(':/', '://')}"):
        load(minimal, (f"warehouse={url}",))
