"""Contracts that every registered model keeps."""

import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from invertigo import models
from invertigo.types import ConfigurationError, InvalidValueError, UnknownNameError

SMALL = {
    "mlp": {"hidden": (16, 8), "activation": "tanh"},
    "lenet": {},
    "convnet": {"width": 4},
    "resnet": {"depth": 8, "width": 4},
    "vgg": {"width": 4},
    "vit": {"dim": 16, "depth": 2, "heads": 2},
}
SHAPES = [(3, 32, 32), (1, 8, 8), (1, 25, 25), (2, 28, 20), (1, 5, 9)]


def small(name, shape=(1, 8, 8), classes=3, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return models.build(name, input_shape=shape, num_classes=classes, generator=generator, **(SMALL[name] | options))


def test_the_registry_holds_the_documented_models():
    assert list(models.registry) == sorted([*SMALL, "gat", "gcn"])


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", SHAPES)
def test_any_image_shape_works_in_any_dtype_and_memory_format(name, shape):
    model = small(name, shape, 5).eval()
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    logits = model(images)
    assert logits.shape == (3, 5)
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.double()(images.double()).float(), logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_weights_come_from_the_generator_and_from_nothing_else(name):
    before = torch.get_rng_state()
    first = small(name, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    same, other = small(name, seed=1).state_dict(), small(name, seed=2).state_dict()
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not torch.equal(torch.cat([v.flatten() for v in first.values()]), _flat(other))


def test_a_generator_goes_on_rather_than_starts_over():
    generator = torch.Generator().manual_seed(0)
    pair = [
        models.build("mlp", input_shape=(1, 4, 4), num_classes=2, generator=generator, hidden=()).head.weight
        for _ in range(2)
    ]
    assert not torch.equal(*pair)


def test_without_a_generator_weights_follow_torch_manual_seed():
    state = torch.get_rng_state()
    try:
        pair = []
        for _ in range(2):
            torch.manual_seed(5)
            pair.append(models.build("lenet", input_shape=(1, 8, 8), num_classes=2).head.weight)
        assert torch.equal(*pair)
    finally:
        torch.set_rng_state(state)


def test_weights_live_on_the_cpu_whatever_the_default_device():
    with torch.device("meta"):
        assert small("lenet").head.weight.device.type == "cpu"


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_double_backward_agrees_with_finite_differences(name, mode):
    """The derivative that every gradient-matching attack takes: of a weight-gradient norm with respect to the image."""
    options = {} if name in ("mlp", "lenet") else {"activation": "softplus"}
    model = small(name, **options).double().train(mode == "train")
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(2, 1, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2])

    def matching(x):
        loss = F.cross_entropy(model(x), labels)
        gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        return sum((g * torch.cos(torch.arange(g.numel()).reshape(g.shape))).sum() for g in gradients)

    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    slope = (torch.autograd.grad(matching(images), images)[0] * direction).sum()
    step = 1e-6
    change = (matching(images + step * direction) - matching(images - step * direction)) / (2 * step)
    assert slope.abs() > 1e-6
    torch.testing.assert_close(slope, change, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", SMALL)
def test_functional_grad_of_grad_under_vmap_and_jvp(name):
    model = small(name).double().eval()
    parameters = {key: p.detach() for key, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    labels = torch.tensor([0, 2])

    def update(images):
        def loss(p):
            return F.cross_entropy(functional_call(model, {**p, **buffers}, (images,)), labels)

        return grad(loss)(parameters)

    def matching(images):
        return sum(g.square().sum() for g in update(images).values())

    restarts = torch.rand(3, 2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = vmap(grad(matching))(restarts)
    apart = torch.stack([grad(matching)(images) for images in restarts])
    torch.testing.assert_close(together, apart, rtol=1e-8, atol=1e-11)
    direction = torch.ones_like(restarts[0])
    _, slope = jvp(matching, (restarts[0],), (direction,))
    torch.testing.assert_close(slope, (apart[0] * direction).sum(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", SMALL)
def test_nothing_works_in_place_on_its_input(name):
    images = torch.rand(2, 1, 8, 8)
    kept = images.clone()
    small(name)(images)
    assert torch.equal(images, kept)
    assert not any(getattr(module, "inplace", False) for module in small(name).modules())


@pytest.mark.parametrize("name", SMALL)
def test_a_mistyped_option_gets_a_suggestion(name):
    option = next(iter(models.options_of(models.registry[name])))
    typo = option[:-1] + "q" + option[-1]
    with pytest.raises(ConfigurationError, match=f"model '{name}' has no option '{typo}'. Did you mean '{option}'"):
        models.build(name, input_shape=(1, 8, 8), num_classes=2, **{typo: 1})


@pytest.mark.parametrize("name", SMALL)
def test_an_unknown_activation_gets_a_suggestion(name):
    with pytest.raises(UnknownNameError, match="Did you mean 'sigmoid'"):
        small(name, activation="sigmod")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {"hidden": (3, 0)}),
        ("mlp", {"dropout": 1.0}),
        ("lenet", {"width": 0}),
        ("lenet", {"init": "normal"}),
        ("convnet", {"width": -2}),
        ("resnet", {"depth": 50}),
        ("resnet", {"blocks": ()}),
        ("resnet", {"blocks": (1, -1)}),
        ("vgg", {"depth": 12}),
        ("vit", {"dim": 10, "heads": 4}),
        ("vit", {"patch": 0}),
    ],
)
def test_senseless_values_are_refused_by_name(name, options):
    with pytest.raises(InvalidValueError, match=next(iter(options))):
        models.build(name, input_shape=(1, 8, 8), num_classes=2, **options)


@pytest.mark.parametrize(("shape", "classes"), [((32, 32), 2), ((0, 8, 8), 2), ((1, 8, 8), 0)])
def test_senseless_sizes_are_refused(shape, classes):
    with pytest.raises(InvalidValueError):
        models.build("mlp", input_shape=shape, num_classes=classes)


def test_an_unknown_model_gets_a_suggestion():
    with pytest.raises(UnknownNameError, match="Did you mean 'resnet'"):
        models.build("resnt", input_shape=(1, 8, 8), num_classes=2)


def _flat(state):
    return torch.cat([v.flatten() for v in state.values()])
