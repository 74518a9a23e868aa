from __future__ import annotations

import pytest
from grids import BASE, study

from invertigo.auditing.scenario import Scenario
from invertigo.studies.expansion import expand, shard_of
from invertigo.studies.store import Store
from invertigo.types import ConfigurationError, UnknownNameError

MODES = {"local.mode": ["train", "eval"]}


def coordinates(**changes):
    return [cell.coordinates for cell in expand(study(seeds=[0], **changes))]


def test_a_grid_is_the_product_in_the_order_of_its_axes():
    assert coordinates(base={**BASE, "attacks": ["dlg"]}, axes={"data.count": [1, 4], **MODES}) == [
        {"data.count": 1, "local.mode": "train"},
        {"data.count": 1, "local.mode": "eval"},
        {"data.count": 4, "local.mode": "train"},
        {"data.count": 4, "local.mode": "eval"},
    ]


def test_zipped_axes_move_together():
    axes = {"attacks": ["dlg"], "data.count": [1, 4], "decoys": [7, 9], **MODES}
    found = coordinates(axes=axes, zip=[["data.count", "decoys"]])
    assert [(c["data.count"], c["decoys"]) for c in found] == [(1, 7), (1, 7), (4, 9), (4, 9)]
    with pytest.raises(ConfigurationError, match="equal length"):
        coordinates(axes={**axes, "decoys": [7]}, zip=[["data.count", "decoys"]])
    with pytest.raises(ConfigurationError, match=r"no axis 'decoy'\. Did you mean 'decoys'"):
        coordinates(axes=axes, zip=[["data.count", "decoy"]])


def test_excluded_combinations_are_left_out():
    axes = {"attacks": ["dlg"], "data.count": [1, 2, 4], **MODES}
    found = coordinates(axes=axes, exclude=[{"data.count": [1, 2], "local.mode": "eval"}])
    assert [(c["data.count"], c["local.mode"]) for c in found] == [
        (1, "train"), (2, "train"), (4, "train"), (4, "eval"),
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"no value 'evil'\. Did you mean 'eval'"):
        coordinates(axes=axes, exclude=[{"local.mode": "evil"}])
    with pytest.raises(ConfigurationError, match="nothing to run"):
        coordinates(axes=axes, exclude=[{"attacks": "dlg"}])


def test_a_labelled_value_moves_several_keys():
    axis = [
        {"label": "small", "set": {"model.name": "mlp", "data.count": 1}},
        {"label": "large", "set": {"model.name": "lenet", "data.count": 8}},
    ]
    cells = expand(study(axes={"attacks": ["dlg"], "setting": axis}, seeds=[0]))
    assert [cell.coordinates["setting"] for cell in cells] == ["small", "large"]
    assert [(c.config["model"]["name"], c.config["data"]["count"]) for c in cells] == [("mlp", 1), ("lenet", 8)]
    assert cells[0].config["data"]["public_count"] == BASE["data"]["public_count"]


def test_attacks_are_called_by_name_and_by_settings_where_names_agree():
    dlg = [{"name": "dlg", "iterations": 1}, {"name": "dlg", "iterations": 2}, "linear_layer"]
    assert [c["attacks"] for c in coordinates(axes={"attacks": dlg})] == [
        "dlg (iterations=1)", "dlg (iterations=2)", "linear_layer",
    ]  # fmt: skip
    assert coordinates(axes={"attacks": dlg[:1]}) == [{"attacks": "dlg"}]


@pytest.mark.parametrize(
    ("axes", "error", "said"),
    [
        ({"attacks": ["dgl"]}, UnknownNameError, r"no attack 'dgl'\. Did you mean 'dlg'.*at attacks=dgl"),
        ({"attacks": [{"name": "dlg", "iteratons": 3}]}, ConfigurationError, "Did you mean 'iterations'"),
        ({"attacks": ["auto"]}, ConfigurationError, "Name the attacks"),
        ({"attacks": [{"name": "dlg", "seconds": 3}]}, ConfigurationError, "bound by seconds"),
        ({"model.name": ["mpl"]}, UnknownNameError, "Did you mean 'mlp'"),
        ({"model.options": [{"widht": 3}]}, ConfigurationError, "has no option 'widht'"),
        ({"data.name": ["digts"]}, UnknownNameError, "Did you mean 'digits'"),
        ({"local.mod": ["eval"]}, ConfigurationError, r"'axes\.local\.mod'\. Did you mean 'axes\.local\.mode'"),
        ({"local.mode": ["evil"]}, ConfigurationError, "local.mode"),
        ({"seeds.x": [1]}, ConfigurationError, "axes.seeds"),
        ({"x": [{"label": "a", "set": {"modl.name": "mlp"}}]}, ConfigurationError, "'axes.x.set.model'"),
        ({"x": [{"label": "a", "put": 1}]}, ConfigurationError, "Unknown key 'axes.x'"),
        ({"data.count": []}, ConfigurationError, "no values"),
        ({"data.count": [2, 2]}, ConfigurationError, "2 twice"),
        ({"data.count": [1], "x": [{"label": "a", "set": {"data.count": 2}}]}, ConfigurationError, "Two axes set"),
    ],
)
def test_whatever_is_wrong_is_said_before_anything_runs(axes, error, said):
    with pytest.raises(error, match=said):
        expand(study(base={**BASE, "attacks": ["linear_layer"]}, axes=axes))


def test_a_cell_is_a_whole_scenario_with_its_schedule_written_out():
    cell = expand(study(axes={"attacks": ["inverting_gradients"]}, seeds=[3]))[0]
    scenario = Scenario.model_validate(cell.config)
    assert scenario.seed == cell.seed == 3
    assert cell.config["attacks"] == [{"name": "inverting_gradients", "iterations": 4800}]
    assert scenario.resolved() == cell.config


def test_keys_follow_the_content_and_not_the_prose():
    def keys(**changes):
        return [cell.key for cell in expand(study(**changes))]

    assert keys() == keys(title="Another", name="other", base={**BASE, "budget": "9s", "expect": "?"})
    assert len(set(keys())) == len(keys()) == 4
    assert not set(keys()) & set(keys(base={**BASE, "decoys": 6}))


def test_a_changed_grid_keeps_the_cells_it_still_asks_for():
    before = {cell.key for cell in expand(study())}
    after = {cell.key for cell in expand(study(seeds=[1, 2], axes={"attacks": ["linear_layer", "idlg"]}))}
    assert len(before & after) == 1  # linear_layer with seed 1


def test_the_examples_of_a_point_are_the_same_whatever_the_batch_size():
    cells = expand(study(axes={"attacks": ["linear_layer"], "data.count": [1, 2, 4]}, seeds=[0], examples=4))
    taken = [(c.config["data"]["count"], c.config["data"]["skip"], c.block) for c in cells]
    assert taken == [(1, 0, 0), (1, 1, 1), (1, 2, 2), (1, 3, 3), (2, 0, 0), (2, 2, 1), (4, 0, 0)]
    assert {c.config["data"]["pool"] for c in cells} == {4}


def test_one_victim_serves_all_attacks_and_batches_and_each_seed_has_its_own():
    axes = {"attacks": ["linear_layer", "dlg"], "data.count": [1, 2], "model.trained_epochs": [0, 2]}
    cells = expand(study(axes=axes, examples=2))
    trained = [cell for cell in cells if cell.config["model"]["trained_epochs"]]
    assert {cell.needs for cell in cells if cell not in trained} == {()}
    assert len({cell.needs for cell in trained}) == 2
    assert {len({c.needs for c in trained if c.seed == seed}) for seed in (0, 1)} == {1}


def test_shards_are_a_partition_that_does_not_depend_on_the_grid():
    cells = expand(study(axes={"attacks": ["dlg"], "data.count": list(range(1, 21))}))
    parts = [shard_of(cells, (i, 3)) for i in (1, 2, 3)]
    assert sorted(c.key for part in parts for c in part) == sorted(c.key for c in cells)
    assert all(parts)
    assert [c.key for c in shard_of(cells[5:], (2, 3))] == [c.key for c in parts[1] if c in cells[5:]]


def test_the_weights_that_a_study_names_are_part_of_its_cells(tmp_path):
    file = tmp_path / "weights.safetensors"
    base = {**BASE, "model": {"name": "mlp", "weights": str(file)}}
    with pytest.raises(ConfigurationError, match="no weights file"):
        expand(study(base=base))
    file.write_bytes(b"one")
    before = [cell.key for cell in expand(study(base=base))]
    file.write_bytes(b"two")
    assert not set(before) & {cell.key for cell in expand(study(base=base))}


def test_a_scan_tells_the_cells_that_are_done_from_those_that_are_missing(tmp_path):
    """How long ten thousand take is measured in benchmarks/study_overhead.py."""
    axes = {"local.learning_rate": [i / 100 for i in range(1, 11)], "data.count": [1, 2]}
    cells = expand(study(axes=axes, base={**BASE, "attacks": ["linear_layer"]}, seeds=[0]))
    assert len(cells) == 20
    store = Store(tmp_path)
    for cell in cells[:5]:
        store.keep(cell, {"result.json": b"{}"})
    states = store.scan(cell.key for cell in cells)
    assert [states[c.key] for c in cells[:5]] == ["done"] * 5
    assert {states[c.key] for c in cells[5:]} == {"missing"}


def claim(**where):
    return {
        "name": "c",
        "sentence": "It is so.",
        "source": "ours",
        "whose": "ours",
        "threshold": {"value": "psnr.mean", "where": where, "op": ">", "number": 0},
    }


def test_a_claim_about_an_axis_that_is_not_there_is_refused_before_anything_runs():
    with pytest.raises(ConfigurationError, match="atacks"):
        expand(study(claims=[claim(atacks="linear_layer")]))
    with pytest.raises(ConfigurationError, match="no value 'dlg'"):
        expand(study(claims=[claim(attacks="dlg")]))


def test_a_claim_may_need_a_larger_scale():
    larger = {"paper": {"axes": {"attacks": ["linear_layer", {"name": "dlg", "iterations": 5}]}}}
    assert len(expand(study(claims=[claim(attacks="dlg")], presets=larger))) == 4


def test_a_defense_and_the_number_of_releases_are_axes():
    axes = {
        "defense": [None, {"name": "gaussian_noise", "std": 0.1}],
        "adversary.releases": [1, 10, 100],
        "attacks": ["dlg"],
    }
    scenarios = [Scenario.model_validate(cell.config) for cell in expand(study(seeds=[0], axes=axes))]
    assert [s.adversary.releases for s in scenarios] == [1, 10, 100] * 2
    assert [s.defense is None for s in scenarios] == [True] * 3 + [False] * 3
    with pytest.raises(UnknownNameError, match="Did you mean 'gaussian_noise'"):
        expand(study(seeds=[0], axes={**axes, "defense": ["gausian_noise"]}))
