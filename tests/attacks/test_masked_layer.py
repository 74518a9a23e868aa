"""A first linear layer's gradient behind a mask or noise still tells the image, without labels."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from invertigo import data, defenses
from invertigo.attacks import reconstruct
from invertigo.attacks.completion import low_rank, rank_one
from invertigo.attacks.masked_layer import LowRankCompletion
from invertigo.auditing.portfolio import choose
from invertigo.domains import Images
from invertigo.types import Knowledge, Observation, RequirementError, Task

SHAPE = (3, 16, 16)


def network(seed=0, width=128):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, width), nn.ReLU(), nn.Linear(width, 10))


def gradient(model, images, labels):
    return torch.autograd.grad(cross_entropy(model(images), labels), list(model.parameters()))


def picture(index):
    return torch.nn.functional.interpolate(data.load("photos").images[index : index + 1], SHAPE[1:], mode="area")


def seen(model, tensors):
    known = Knowledge(num_examples=1)
    return Observation.from_gradients(
        model, cross_entropy, tensors, domain=Images(SHAPE), num_classes=10, knowledge=known
    )


def decibels(rebuilt, images):
    return float(-10 * (rebuilt.fields["images"].double() - images.double()).square().mean().log10())


def without_extremes(tensor):
    """Of every layer, the largest twentieth and the smallest three quarters of the entries left out."""
    size, order = tensor.numel(), tensor.abs().flatten().argsort()
    flat = tensor.flatten().clone()
    flat[order[: int(0.75 * size)]] = 0
    flat[order[size - int(0.05 * size) :]] = 0
    return flat.view_as(tensor)


@pytest.mark.parametrize("index", [20, 21, 22])
def test_one_image_behind_dual_pruning_comes_back_without_labels(index):
    model, images = network(index), picture(index)
    masked = [without_extremes(g) for g in gradient(model, images, torch.tensor([index % 10]))]
    observation = seen(model, masked)
    view = defenses.make("dual_pruning").adversary_view(observation)
    informed = reconstruct(observation.informed(view), "low_rank_completion")
    assert decibels(informed, images) >= 28
    assert decibels(informed, images) >= decibels(reconstruct(observation, "linear_layer"), images)
    assert informed.stopped == "converged"
    assert not LowRankCompletion.exact  # an estimate is never certified


def test_pixels_that_are_told_are_told_exactly():
    torch.manual_seed(1)
    left, right = torch.randn(40, dtype=torch.float64), torch.randn(60, dtype=torch.float64)
    matrix, shown = torch.outer(left, right), torch.rand(40, 60) < 0.2
    fit = rank_one(matrix * shown, shown.double())
    torch.testing.assert_close(fit.matrix, matrix)


def test_what_is_not_connected_to_the_visible_part_stays_unknown():
    matrix = torch.ones(4, 4, dtype=torch.float64)
    shown = torch.block_diag(torch.ones(2, 3), torch.ones(2, 1)).double()
    fit = rank_one(matrix * shown, shown, rounds=10)
    torch.testing.assert_close(fit.matrix[:2, :3], torch.ones(2, 3, dtype=torch.float64))


def test_a_matrix_of_rank_three_is_completed():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (50, 60))
    matrix, shown = left @ right.T, torch.rand(50, 60, generator=generator) < 0.6
    fit = low_rank(matrix * shown, shown.double(), 3, generator, rounds=2000)
    assert float((fit.matrix - matrix).norm() / matrix.norm()) < 1e-3


def test_noise_is_averaged_over_all_neurons_and_smoothed():
    model, images, gains = network(5), picture(23), []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        grads = gradient(model, images, torch.tensor([3]))
        noisy = [g + 0.02 * torch.randn(g.shape, generator=generator) for g in grads]
        least_squares = (noisy[1] @ noisy[0]) / noisy[1].square().sum()
        plain = -10 * (least_squares.reshape(images.shape).clamp(0, 1) - images).square().mean().log10()
        gains.append(decibels(reconstruct(seen(model, noisy), "low_rank_completion"), images) - float(plain))
    assert sum(gains) / 4 > 2


@pytest.mark.parametrize("levels", [1, 7])
def test_entries_rounded_to_few_levels_are_no_holes(levels):
    model, images = network(5), picture(24)
    grads = gradient(model, images, torch.tensor([3]))
    rounded = [(g / (step := g.abs().max() / levels)).round() * step for g in grads]
    with pytest.raises(RequirementError, match="few magnitudes"):
        reconstruct(seen(model, rounded), "low_rank_completion")


def test_a_gradient_that_nothing_happened_to_is_left_to_the_exact_attack():
    model, images = network(5), picture(24)
    with pytest.raises(RequirementError, match="linear_layer"):
        reconstruct(seen(model, gradient(model, images, torch.tensor([3]))), "low_rank_completion")


def test_an_audit_tries_it_by_itself():
    assert "low_rank_completion" in [
        e.name for e in choose("auto", Task(network(), cross_entropy, Images(SHAPE), 10), 1)
    ]
