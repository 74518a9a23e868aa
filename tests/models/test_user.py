"""The user's own models and weights."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from invertigo import models
from invertigo.types import ConfigurationError, CorruptFileError, InvalidValueError, MismatchError, UnknownNameError

SOURCE = """
import torch
from torch import nn

def net(num_classes, width=4):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, num_classes))

def shaped(input_shape, num_classes):
    return nn.Linear(input_shape[0], num_classes)

def plain():
    return nn.Linear(2, 3)

class Box:
    class Net(nn.Module):
        pass

ready = nn.Linear(5, 5)
number = 7

def wrong():
    return {"weight": 1}
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text(SOURCE)
    (tmp_path / "needs_more.py").write_text("import surely_not_installed_anywhere")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no weights today')")
    monkeypatch.chdir(tmp_path)
    yield "their_models"
    for name in ("their_models", "needs_more", "broken"):
        sys.modules.pop(name, None)


def test_a_factory_in_the_working_directory_is_found_and_the_path_restored(own_module):
    before = list(sys.path)
    model = models.load_factory("their_models:net", num_classes=3, width=6)
    assert model[2].weight.shape == (3, 6)
    assert sys.path == before


@pytest.mark.parametrize(("name", "kind"), [("plain", nn.Linear), ("ready", nn.Linear), ("Box.Net", nn.Module)])
def test_functions_classes_and_instances_do(own_module, name, kind):
    assert isinstance(models.load_factory(f"their_models:{name}"), kind)


@pytest.mark.parametrize(
    ("path", "error", "says"),
    [
        ("their_models", ConfigurationError, "module:factory"),
        ("their_models:", ConfigurationError, "module:factory"),
        ("their_modles:net", UnknownNameError, "no module 'their_modles'"),
        ("their_models.inner:net", UnknownNameError, r"no module 'their_models\.inner'"),
        ("their_models:nett", UnknownNameError, "Did you mean 'net'"),
        ("their_models:number", ConfigurationError, "is a int"),
        ("their_models:wrong", ConfigurationError, "gave a dict"),
        ("needs_more:net", ConfigurationError, "needs 'surely_not_installed_anywhere'"),
        ("broken:net", ConfigurationError, "no weights today"),
        ("their_models:net", ConfigurationError, "num_classes"),
    ],
)
def test_what_is_wrong_is_said(own_module, path, error, says):
    with pytest.raises(error, match=says):
        models.load_factory(path)


def test_resolve_takes_all_three_kinds(own_module):
    facts = {"input_shape": (1, 8, 8), "num_classes": 4}
    own = nn.Linear(1, 1)
    assert models.resolve(own, **facts) is own
    assert isinstance(models.resolve("lenet", **facts, width=3), models.LeNet)
    assert models.resolve("their_models:net", **facts, width=5)[2].weight.shape == (4, 5)
    assert models.resolve("their_models:shaped", **facts).weight.shape == (4, 1)
    assert models.resolve("their_models:plain", **facts).weight.shape == (3, 2)
    with pytest.raises(ConfigurationError, match="built already"):
        models.resolve(own, **facts, width=3)
    with pytest.raises(ConfigurationError, match="widht"):
        models.resolve("their_models:net", **facts, widht=3)


def test_resolve_draws_a_users_weights_from_the_generator(own_module):
    before = torch.get_rng_state()
    pair = [
        models.resolve(
            "their_models:shaped",
            input_shape=(4, 8, 8),
            num_classes=3,
            generator=torch.Generator().manual_seed(7),
        ).weight
        for _ in range(2)
    ]
    assert torch.equal(*pair)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def trained(tmp_path):
    model = models.build("resnet", input_shape=(1, 8, 8), num_classes=2, depth=8, width=4)
    model(torch.rand(4, 1, 8, 8))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return model, tmp_path / "weights.safetensors"


def test_weights_and_buffers_come_back(trained):
    model, path = trained
    other = models.build("resnet", input_shape=(1, 8, 8), num_classes=2, depth=8, width=4).double()
    assert models.load_weights(other, path) is other
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name].to(tensor.dtype), tensor)
    assert other.head.weight.dtype == torch.float64


def test_weights_of_another_model_are_refused_and_leave_it_alone(trained):
    model, path = trained
    other = models.build("resnet", input_shape=(1, 8, 8), num_classes=5, depth=8, width=4)
    kept = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(MismatchError, match=r"'head\.weight' is \(2, 16\) but the model's is \(5, 16\)"):
        models.load_weights(other, path)
    assert all(torch.equal(kept[name], tensor) for name, tensor in other.state_dict().items())
    state = model.state_dict()
    save_file({**{k: v for k, v in state.items() if k != "head.bias"}, "tail": torch.zeros(1)}, path)
    with pytest.raises(MismatchError, match=r"lacks 'head\.bias'.*has 'tail'"):
        models.load_weights(model, path)


def test_unusable_weight_files_are_refused(trained, tmp_path):
    model, path = trained
    save_file({**model.state_dict(), "head.bias": torch.tensor([0.0, torch.nan])}, path)
    with pytest.raises(InvalidValueError, match=r"head\.bias"):
        models.load_weights(model, path)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    for file in ("weights.pt", "absent.safetensors"):
        with pytest.raises(CorruptFileError, match=file):
            models.load_weights(model, tmp_path / file)
