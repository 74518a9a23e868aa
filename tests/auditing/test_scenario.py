import pytest
import yaml

from invertigo.auditing.budget import parse_budget
from invertigo.auditing.scenario import Scenario, load_scenario, scenario_names
from invertigo.types import ConfigurationError, InvertigoError, UnknownNameError


def write(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return path


def test_every_packaged_scenario_loads_and_says_what_it_finds():
    assert "demo" in scenario_names()
    for name in scenario_names():
        scenario = load_scenario(name)
        assert scenario.title, name
        assert scenario.description, name
        assert scenario.expect, name
        assert all(isinstance(c, Scenario) for c in scenario.companions())


def test_defaults_are_written_out_and_load_again(tmp_path):
    first = load_scenario(write(tmp_path, "model: {name: mlp}\n"))
    again = load_scenario(write(tmp_path, yaml.safe_dump(first.resolved())))
    assert again == first
    assert first.resolved()["local"]["mode"] == "train"
    assert first.decoys == 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("locall: {mode: eval}", "'locall'. Did you mean 'local'?"),
        ("local: {mod: eval}", "'local.mod'. Did you mean 'local.mode'?"),
        ("adversary: {zzz: 1}", "'adversary.zzz'. Known: levels, clients"),
        ("local: {mode: evaluate}", "'local.mode' is 'evaluate'"),
        ("data: {count: 0}", "'data.count' is 0"),
        ("data: {count: many}", "'data.count' is 'many'"),
        ("adversary: {levels: [7]}", "no rung 7"),
        ("budget: soon", "'budget' is 'soon'"),
        ("local: {epochs: 3}", "sends='difference'"),
        ("model: {name: mlp, factory: 'a:b'}", "not both"),
        ("- 1", "key: value"),
        ("a: [", "no valid YAML"),
        ("dtype: float16", "'dtype' is 'float16'"),
        ("attacks: [{iterations: 3}]", "attacks.0"),
    ],
)
def test_mistakes_name_the_key_and_the_way_out(tmp_path, text, expected):
    with pytest.raises(ConfigurationError, match=r".+") as error:
        load_scenario(write(tmp_path, text))
    assert expected in str(error.value)


def test_overrides_reach_into_sections_and_lists(tmp_path):
    path = write(tmp_path, "attacks: [dlg, {name: gauss_newton, iterations: 3}]")
    scenario = load_scenario(
        path,
        [
            "local.mode=eval",
            "data.indices=[1, 2]",
            "model.options.width=16",
            "attacks.0.restarts=2",
            "attacks.1.iterations=5",
        ],
    )
    assert scenario.local.mode == "eval"
    assert scenario.data.indices == [1, 2]
    assert scenario.model.options == {"width": 16}
    listed = scenario.attack_list()
    assert (listed[0].name, listed[0].hyperparameters) == ("dlg", {"restarts": 2})
    assert listed[1].hyperparameters == {"iterations": 5}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("local.mode", "no '='"),
        ("local.mdoe=eval", "'local.mdoe'. Did you mean 'local.mode'?"),
        ("seed.x=1", "'seed' holds the value 3"),
        ("attacks.4.x=1", "position"),
        ("title=[", "no YAML"),
    ],
)
def test_bad_overrides_are_explained(tmp_path, override, expected):
    path = write(tmp_path, "{seed: 3, attacks: [dlg]}")
    with pytest.raises(ConfigurationError) as error:
        load_scenario(path, [override])
    assert expected in str(error.value)


def test_an_unknown_scenario_gets_a_suggestion_and_a_missing_file_its_path(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'demo'"):
        load_scenario("demoo")
    with pytest.raises(ConfigurationError, match=r"nowhere\.yaml"):
        load_scenario(tmp_path / "nowhere.yaml")
    with pytest.raises(InvertigoError):
        load_scenario(tmp_path)


def test_companions_are_changes_to_this_scenario_or_other_scenarios(tmp_path):
    path = write(
        tmp_path,
        "{seed: 5, local: {mode: eval}, compare: [{title: other, local.mode: train, data: {count: 9}}, faces-mlp]}",
    )
    changed, packaged = load_scenario(path).companions()
    assert (changed.seed, changed.local.mode, changed.data.count, changed.title) == (5, "train", 9, "other")
    assert changed.compare == []
    assert packaged == load_scenario("faces-mlp")


def test_the_schema_describes_every_key():
    schema = Scenario.model_json_schema()
    assert set(schema["properties"]) == set(Scenario.model_fields)
    assert schema["additionalProperties"] is False


def test_the_demo_is_bounded_by_schedules_and_not_by_time():
    """Its result must not depend on how busy the machine is: the audit's own attacks, under a budget far off."""
    demo = load_scenario("demo")
    for part in (demo, *demo.companions()):
        assert part.attacks == "auto"
        assert part.adversary.levels is None
        assert parse_budget(part.budget) >= 1800
