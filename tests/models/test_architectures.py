"""The architectures are the published ones: sizes, counts, order of weights, and what the options change."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invertigo import models


def build(name, shape=(3, 32, 32), classes=10, **options):
    return models.build(
        name, input_shape=shape, num_classes=classes, generator=torch.Generator().manual_seed(0), **options
    )


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("lenet", {}, 15_826),
        ("convnet", {}, 2_904_970),
        ("resnet", {"depth": 18}, 11_173_962),
        ("resnet", {"depth": 34}, 21_282_122),
        ("resnet", {"depth": 32}, 466_906),
        ("vgg", {"depth": 11}, 9_231_114),
        ("vgg", {"depth": 16}, 14_728_266),
        ("mlp", {"hidden": (1024,)}, 3072 * 1024 + 1024 + 1024 * 10 + 10),
    ],
)
def test_number_of_weights(name, options, expected):
    assert count(build(name, **options)) == expected


def test_lenet_on_cifar100_is_the_one_of_deep_leakage():
    model = build("lenet", classes=100, init="uniform")
    assert [tuple(p.shape) for p in model.parameters()] == [
        *((12, 3, 5, 5), (12,), (12, 12, 5, 5), (12,), (12, 12, 5, 5), (12,), (100, 768), (100,)),
    ]
    assert sum(isinstance(m, nn.Sigmoid) for m in model.modules()) == 3
    assert [m.stride[0] for m in model.modules() if isinstance(m, nn.Conv2d)] == [2, 2, 1]
    for parameter in model.parameters():
        assert parameter.abs().max() <= 0.5
        assert parameter.std().item() == pytest.approx(1 / 12**0.5, abs=0.12)
    assert build("lenet").head.weight.abs().max() <= 768**-0.5


def test_convnet_is_the_one_of_inverting_gradients():
    """A second description of the network, run on the model's own weights in their order."""
    model = build("convnet").eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 2)
    weights = [tensor for name, tensor in model.state_dict().items() if "num_batches" not in name]
    images = torch.rand(2, 3, 32, 32)
    maps = images
    for layer in range(8):
        kernel, bias, scale, shift, mean, variance = weights[6 * layer : 6 * layer + 6]
        assert kernel.shape[0] == 64 * (1, 2, 2, 4, 4, 4, 4, 4)[layer]
        maps = F.relu(F.batch_norm(F.conv2d(maps, kernel, bias, padding=1), mean, variance, scale, shift))
        if layer in (5, 7):
            maps = F.max_pool2d(maps, 3)
    expected = F.linear(maps.flatten(1), *weights[48:])
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def resnet_by_hand(weights, images, strides):
    """Post-activation basic blocks, read from a flat list of convolution and normalisation weights."""
    queue = list(weights)

    def conv_norm(maps, stride):
        kernel, scale, shift, mean, variance = (queue.pop(0) for _ in range(5))
        convolved = F.conv2d(maps, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        return F.batch_norm(convolved, mean, variance, scale, shift)

    maps = F.relu(conv_norm(images, 1))
    for stride in strides:
        # The shortcut's weights follow the block's, as they do in torchvision.
        first = F.relu(conv_norm(maps, stride))
        out = conv_norm(first, 1)
        short = conv_norm(maps, stride) if stride == 2 else maps
        maps = F.relu(out + short)
    return F.linear(F.adaptive_avg_pool2d(maps, 1).flatten(1), *queue)


def convolutions_then_norms(model):
    """state_dict tensors with each convolution directly before its normalisation."""
    state = model.state_dict()
    tensors = [(k, v) for k, v in state.items() if "num_batches" not in k]
    blocks, rest = [], []
    for key, value in tensors:
        (blocks if "body" in key else rest).append((key, value))
    return [v for k, v in rest if "stem" in k] + [v for _, v in blocks] + [v for k, v in rest if "head" in k]


def test_resnet18_is_the_cifar_one():
    model = build("resnet", depth=18, width=64).eval()
    images = torch.rand(2, 3, 32, 32)
    strides = (1, 1, 2, 1, 2, 1, 2, 1)
    expected = resnet_by_hand(convolutions_then_norms(model), images, strides)
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("depth", "layers"), [(8, 8), (18, 18), (20, 20), (32, 32), (34, 34)])
def test_depth_counts_layers_on_the_main_path(depth, layers):
    model = build("resnet", depth=depth, width=2)
    threes = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(threes) + 1 == layers


def test_blocks_override_depth():
    assert len([m for m in build("resnet", blocks=(1, 2), width=2).body if hasattr(m, "conv1")]) == 3


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("layer", nn.GroupNorm), ("none", type(None))],
)
@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet", {"depth": 8}), ("resnet", {"depth": 8, "preactivation": True}), ("convnet", {}), ("vgg", {})],
)
def test_norms(name, options, norm, kind):
    model = build(name, (1, 16, 16), width=8, norm=norm, **options)
    kinds = {type(m) for m in model.modules()} & {nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d}
    assert kinds == ({kind} - {type(None)})
    images = torch.rand(4, 1, 16, 16)
    alone = torch.cat([model(image[None]) for image in images])
    # Only BatchNorm makes one example's output depend on the others.
    assert torch.allclose(alone, model(images), atol=1e-4) == (norm != "batch")
    if norm == "layer":
        assert all(m.num_groups == 1 for m in model.modules() if isinstance(m, nn.GroupNorm))
    if norm == "group":
        assert all(m.num_groups > 1 for m in model.modules() if isinstance(m, nn.GroupNorm))


@pytest.mark.parametrize("preactivation", [False, True])
def test_skip_connections_carry_the_input_past_a_dead_branch(preactivation):
    images = torch.rand(2, 3, 16, 16)
    for skip in (True, False):
        model = build("resnet", (3, 16, 16), depth=8, width=8, norm="none", skip=skip, preactivation=preactivation)
        for name, parameter in model.named_parameters():
            if "conv2" in name:
                parameter.data.zero_()
        logits = model(images)
        assert torch.allclose(logits[0], logits[1]) == (not skip)


def test_a_preactivation_identity_path_is_linear():
    block = models.resnet.PreactivationBlock(4, 4, 1, "batch", "relu", True).eval()
    block.conv2.weight.data.zero_()
    maps = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(maps), maps)
    post = models.resnet.Block(4, 4, 1, "batch", "relu", True).eval()
    post.conv2.weight.data.zero_()
    assert torch.equal(post(maps), maps.relu())


@pytest.mark.parametrize("depth", [8, 18, 34])
def test_signals_keep_their_scale_without_normalisation(depth):
    model = build("resnet", depth=depth, norm="none", width=16)
    assert 0.01 < model(torch.randn(8, 3, 32, 32)).std() < 100


def test_attention_agrees_with_pytorchs():
    attention = models.vit.Attention(24, 3)
    tokens = torch.randn(2, 7, 24)
    stock = nn.MultiheadAttention(24, 3, batch_first=True)
    stock.load_state_dict(
        {
            "in_proj_weight": attention.query_key_value.weight,
            "in_proj_bias": attention.query_key_value.bias,
            "out_proj.weight": attention.project.weight,
            "out_proj.bias": attention.project.bias,
        }
    )
    torch.testing.assert_close(attention(tokens), stock(tokens, tokens, tokens)[0])


def test_vit_sees_every_pixel_also_where_patches_do_not_fit():
    model = build("vit", (1, 25, 25), dim=16, depth=1).double()
    images = torch.rand(1, 1, 25, 25, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(model(images)[0, 0], images)
    assert (slope != 0).all()
    assert model.positions.shape == (1, 50, 16)


def test_vit_knows_where_a_patch_is():
    model = build("vit", (1, 8, 8), dim=16, depth=1)
    images = torch.zeros(1, 1, 8, 8)
    images[..., :4, :4] = 1
    assert not torch.allclose(model(images), model(images.flip(3)), atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "vit"])
def test_dropout_works_in_training_only(name):
    model = build(name, (1, 8, 8), dropout=0.5)
    images = torch.rand(2, 1, 8, 8)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize(("name", "size"), [("convnet", 8), ("vgg", 8), ("vgg", 25), ("vgg", 31), ("resnet", 9)])
def test_one_small_example_trains_through_batch_norm(name, size):
    assert torch.isfinite(build(name, (1, size, size), width=4)(torch.rand(1, 1, size, size))).all()


def test_mlp_options():
    assert count(build("mlp", (1, 4, 4), 2, hidden=())) == 16 * 2 + 2
    assert count(build("mlp", (1, 4, 4), 2, hidden=5, bias=False)) == 16 * 5 + 5 * 2
    assert any(isinstance(m, nn.BatchNorm1d) for m in build("mlp", batch_norm=True).modules())
