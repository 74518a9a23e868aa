from __future__ import annotations

from importlib.resources import files

import pytest
import yaml
from grids import grid, study, write

from invertigo.studies.schema import FILE, schema_text, study_schema
from invertigo.studies.spec import load_study, parse_study, study_names
from invertigo.types import ConfigurationError, UnknownNameError


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sedes": [1]}, r"Unknown key 'sedes'\. Did you mean 'seeds'"),
        ({"base": {"model": {"nme": "mlp"}}}, r"'base\.model\.nme'\. Did you mean 'base\.model\.name'"),
        ({"base": {"model.nme": "mlp"}}, r"'base\.model\.nme'\. Did you mean 'base\.model\.name'"),
        ({"presets": {"smoke": {"seed": [1]}}}, r"'presets\.smoke\.seed'\. Did you mean 'presets\.smoke\.seeds'"),
        (
            {"presets": {"smoke": {"base": {"dta": {}}}}},
            r"'presets\.smoke\.base\.dta'\. Did you mean 'presets\.smoke\.base\.data'",
        ),
        ({"presets": {"huge": {}}}, "presets.huge"),
        ({"seeds": [1, 1]}, "distinct"),
        ({"name": "a/b"}, "'name' is 'a/b'"),
        ({"resources": {"cpu": 2}}, r"Did you mean 'resources\.cpus'"),
    ],
)
def test_a_mistake_is_named_with_the_nearest_right_key(changes, said):
    with pytest.raises(ConfigurationError, match=said):
        parse_study(grid(**changes))


def test_a_file_is_read_and_one_that_is_not_there_is_told(tmp_path):
    assert load_study(write(tmp_path / "tiny.yaml")) == study()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_study(tmp_path / "tinny.yaml")
    with pytest.raises(UnknownNameError, match="no study 'tinny'"):
        load_study("tinny")


def test_a_preset_changes_what_it_names_and_nothing_else():
    smoke = {"base": {"decoys": 3}, "axes": {"attacks": ["dlg"], "data.count": [1]}, "seeds": [5], "examples": 1}
    whole = study(axes={"attacks": ["linear_layer"], "local.mode": ["train", "eval"]}, presets={"smoke": smoke})
    at = whole.at("smoke")
    assert at.base["decoys"] == 3
    assert at.base["data"] == whole.base["data"]
    assert at.axes == {"attacks": ["dlg"], "local.mode": ["train", "eval"], "data.count": [1]}
    assert (at.seeds, at.examples) == ([5], 1)
    assert study(presets={"cpu": {"axes": {"attacks": None}}}).at("cpu").axes == {}
    with pytest.raises(UnknownNameError, match=r"no preset 'smok'\. Did you mean 'smoke'"):
        whole.at("smok")


def test_the_schema_that_is_shipped_is_the_one_of_the_code():
    """`invertigo show --schema study > src/invertigo/studies/study.schema.json` renews it."""
    assert (files("invertigo.studies") / FILE).read_text(encoding="utf-8") == schema_text()


def test_the_schema_knows_the_keys_of_a_scenario():
    schema = study_schema()
    assert schema["properties"]["base"]["$ref"] == "#/$defs/Scenario"
    assert "adversary" in schema["$defs"]["Scenario"]["properties"]
    references = [line.split('"')[3] for line in schema_text().splitlines() if '"$ref"' in line]
    assert {reference.removeprefix("#/$defs/") for reference in references} <= set(schema["$defs"])


@pytest.mark.parametrize("name", study_names())
def test_every_packaged_study_is_read_and_expands(name, monkeypatch, tmp_path):
    from invertigo.studies.expansion import expand

    packaged = load_study(name)
    assert packaged.name == name
    for preset in packaged.presets:
        assert expand(packaged, preset)


def test_yaml_that_is_none_is_told(tmp_path):
    (tmp_path / "a.yaml").write_text("name: [")
    with pytest.raises(ConfigurationError, match="no valid YAML"):
        load_study(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text(yaml.safe_dump([1]))
    with pytest.raises(ConfigurationError, match="holds list"):
        load_study(tmp_path / "b.yaml")
