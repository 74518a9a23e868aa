"""The doctor names what leaks, in which layer, and what to do, without an attack."""

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import invertigo
from invertigo import models
from invertigo.types import InvalidValueError

SHAPE, CLASSES = (3, 16, 16), 10


def build(name, **options):
    generator = torch.Generator().manual_seed(0)
    return models.build(name, input_shape=SHAPE, num_classes=CLASSES, generator=generator, **options)


def doctor(model, batch_size=8, loss=F.cross_entropy, **options):
    return invertigo.doctor(model, loss, batch_size, **{"input_shape": SHAPE} | options)


@pytest.mark.parametrize(
    ("options", "batch_size", "code", "severity"),
    [
        ({}, 1, "first-layer-exact", "critical"),
        ({}, 8, "first-layer-exact", "critical"),
        ({"activation": "gelu"}, 1, "first-layer-exact", "critical"),
        ({"activation": "gelu"}, 8, "first-layer-span", "warning"),
        ({"bias": False}, 1, "first-layer-span", "warning"),
        ({"batch_norm": True}, 8, "first-layer-cancelled", "warning"),
    ],
)
def test_first_linear_layer(options, batch_size, code, severity):
    finding = doctor(build("mlp", **options), batch_size)[code]
    assert finding.severity == severity
    assert finding.layer == "body.1"
    assert finding.fix


def test_batch_bound_is_the_number_of_neurons():
    finding = doctor(build("mlp", hidden=(4,)), 8)["first-layer-exact"]
    assert "Up to 4 of 8 examples" in finding.message


def test_convolution_counts_unknowns_and_equations():
    diagnosis = doctor(build("lenet"), 2)
    assert "first-layer-exact" not in diagnosis
    finding = diagnosis["first-convolution"]
    convolution = next(m for m in build("lenet").modules() if isinstance(m, nn.Conv2d))
    assert f"turns {3 * 16 * 16} pixels into" in finding.message
    assert f"adds {convolution.weight.numel()} equations for {2 * 3 * 16 * 16}" in finding.message
    values = convolution(torch.zeros(1, *SHAPE)).numel()
    assert f"into {values} values" in finding.message


def test_embedding():
    class Tagged(nn.Module):
        def __init__(self):
            super().__init__()
            self.tags, self.head = nn.Embedding(50, 8), nn.Linear(8, CLASSES)

        def forward(self, x):
            return self.head(self.tags((x.mean((1, 2, 3)) * 49).long()))

    assert doctor(Tagged())["embedding-rows"].severity == "critical"
    frozen = Tagged()
    frozen.tags.requires_grad_(False)
    assert "embedding-rows" not in doctor(frozen)


def test_labels():
    one = doctor(build("convnet", width=8), 1)["labels"]
    assert one.severity == "critical"
    assert isinstance(dict(build("convnet", width=8).named_modules())[one.layer], nn.Linear)
    several = doctor(build("convnet", width=8), 3)["labels"]
    assert several.severity == "warning"
    assert "probability 0.72" in several.message  # 10 * 9 * 8 / 1000
    assert "probability 0;" in doctor(build("convnet", width=8), 11)["labels"].message


def test_other_losses_do_not_tell_labels():
    assert "labels" not in doctor(build("lenet"), loss=lambda z, y: -(z**2).mean())
    assert "loss-not-probed" in doctor(build("lenet"), loss=nn.KLDivLoss(log_target=1, reduction="nope"))


def test_modes_and_buffers():
    trained, evaluated = doctor(build("convnet", width=8)), doctor(build("convnet", width=8), mode="eval")
    assert "inference-mode" not in trained
    assert evaluated["inference-mode"].severity == "warning"
    norms = [m for m in build("convnet", width=8).modules() if isinstance(m, nn.BatchNorm2d)]
    assert (
        f"{len(norms)} norm layers hold {2 * sum(m.num_features for m in norms)}" in trained["shared-buffers"].message
    )
    assert "batchnorm-couples" in trained
    assert "shared-buffers" not in doctor(build("lenet"))
    assert "dropout" in doctor(build("mlp", dropout=0.3))


def test_counts_of_numbers_and_pixels():
    model = build("lenet")
    entries = sum(p.numel() for p in model.parameters())
    limit = entries // (3 * 16 * 16)
    assert "enough-equations" in doctor(model, limit)
    assert "too-few-equations" in doctor(model, limit + 1)


def test_tied_and_unused_parameters():
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 768), nn.Linear(768, 768), nn.ReLU(), nn.Linear(768, CLASSES))
    model[2].weight = model[1].weight
    model.register_parameter("spare", nn.Parameter(torch.ones(2)))
    diagnosis = doctor(model)
    assert "1.weight and 2.weight" in diagnosis["tied-parameters"].message
    assert diagnosis["no-gradient"].layer == "spare"


def test_shape_is_inferred_where_there_is_only_one():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(49, 8), nn.ReLU(), nn.Linear(8, 3))
    assert doctor(linear, input_shape=None).input_shape == (1, 1, 49)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 5))
    assert doctor(convolution, input_shape=None).input_shape == (3, 32, 32)
    assert doctor(convolution, input_shape=torch.rand(2, 3, 32, 32)).input_shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"input_shape": None}, r"pass input_shape=\(channel, height, width\)"),
        ({"input_shape": (3, 16)}, "channel, height, width"),
        ({"input_shape": (5, 16, 16)}, r"cannot read images of shape \(5, 16, 16\)"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_examined_is_explained(options, match):
    anywhere = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    with pytest.raises(InvalidValueError, match=match):
        doctor(anywhere, **options)


def test_model_and_random_state_are_left_alone():
    model = build("resnet", width=8)
    before, state, modes = (
        copy.deepcopy(model.state_dict()),
        torch.get_rng_state(),
        [m.training for m in model.modules()],
    )
    doctor(model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert modes == [m.training for m in model.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_it_reads_well_and_serialises():
    diagnosis = doctor(build("mlp"), 1)
    text = str(diagnosis)
    assert text.splitlines()[0] == "MLP · input 3 x 16 x 16 · batch 1 · train mode"
    assert "CRITICAL  first-layer-exact [body.1]" in text
    assert "Fix: " in text
    assert text.endswith("No attack was run.")
    severities = [f.severity for f in diagnosis.findings]
    assert severities == sorted(severities, key=["critical", "warning", "info"].index)
    assert json.loads(json.dumps(diagnosis.as_dict()))["leaks_exactly"] is True


@pytest.mark.parametrize(("batch_size", "severity"), [(1, "critical"), (4, "warning")])
def test_positions_of_a_transformer_give_its_image_away(batch_size, severity):
    finding = doctor(build("vit"), batch_size)["position-tokens"]
    assert finding.severity == severity
    assert "'positions'" in finding.message
    assert "position-tokens" not in doctor(build("lenet"), batch_size)


def test_a_bare_linear_network_is_not_called_harmless():
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 3), nn.Flatten(1))
    assert invertigo.doctor(model, F.cross_entropy, 8)["first-layer-exact"].severity == "critical"
