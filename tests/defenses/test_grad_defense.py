"""GradDefense cuts at equal sensitivity, touches whole slices only, and leaves slices that an adversary finds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from invertigo.defenses import GradDefense
from invertigo.defenses.grad_defense import noisy, slice_of
from invertigo.types import InvalidValueError, LocalTraining


def slices_by_loop(sensitive, sizes, count):
    """Walk over the entries with a running sum, and start the next slice whenever its share is full."""
    each = [s / n for s, n in zip(sensitive.values(), sizes.values()) for _ in range(n)]
    share, running, owners = sum(each) / count, 0.0, []
    for value in each:
        owners.append(min(int((running + value / 2) / share), count - 1))
        running += value
    return owners


def sensitivity_by_loop(task, batch):
    """Length of the derivative of each layer's summed gradient by each example, averaged."""
    images = batch["images"].clone().requires_grad_()
    loss = task.loss(task.model(images), batch["labels"])
    layers = torch.autograd.grad(loss, list(task.model.parameters()), create_graph=True)
    found = {}
    for (name, _), layer in zip(task.model.named_parameters(), layers):
        (slope,) = torch.autograd.grad(layer.sum(), images, retain_graph=True, allow_unused=True)
        found[name] = 0.0 if slope is None else sum(s.norm().item() for s in slope) / len(slope)
    return found


def test_slices_hold_equal_sensitivity():
    sensitive, sizes = {"a": 3.0, "b": 1.0, "c": 6.0}, {"a": 30, "b": 50, "c": 20}
    owners = slice_of(sensitive, sizes, 5)
    assert owners.tolist() == slices_by_loop(sensitive, sizes, 5)
    each = torch.cat([torch.full((n,), sensitive[k] / n) for k, n in sizes.items()])
    held = torch.stack([each[owners == j].sum() for j in range(5)])
    assert torch.allclose(held, torch.full((5,), 2.0), atol=0.35)


def test_noise_falls_on_whole_slices_of_the_chosen_number(released):
    raw = released(None)[2].observation.update.tensors
    task, batch, seen = released(GradDefense(slices=10, perturbed=4))
    sizes = {name: tensor.numel() for name, tensor in raw.items()}
    owners = torch.tensor(slices_by_loop(sensitivity_by_loop(task, batch), sizes, 10))
    sent = seen.observation.update.tensors
    changed = torch.cat([(sent[name] != raw[name]).flatten() for name in raw])
    touched = {j for j in range(10) if changed[owners == j].any()}
    assert len(touched) == 4
    assert all(changed[owners == j].all() for j in touched)
    assert seen.traces[0].facts["perturbed_entries"] == pytest.approx(changed.double().mean().item())


def test_noise_has_the_scale_and_is_new_every_time(released):
    raw = released(None)[2].observation.update.tensors
    one, two = (released(GradDefense(perturbed=10), seed=None)[2].observation.update.tensors for _ in range(2))
    noise = torch.cat([(one[name] - raw[name]).flatten() for name in raw])
    assert noise.std().item() == pytest.approx(0.01, rel=0.1)
    assert all(not torch.equal(one[name], two[name]) for name in raw)


def test_clipping_bounds_what_each_example_adds(released):
    defense = GradDefense(slices=2, perturbed=2, scale=1e-6, clip=True)
    sent = released(defense, count=1)[2].observation.update.tensors
    assert torch.cat([t.flatten() for t in sent.values()]).norm() < 2e-6 + 1e-6 * 3 * 2200**0.5
    raw = released(None, count=1)[2].observation.update.tensors
    assert torch.cat([t.flatten() for t in raw.values()]).norm() > 1e-3


def test_clipping_with_batchnorm_says_why_not(released):
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 4)
    ).double()
    with pytest.raises(InvalidValueError, match="GroupNorm"):
        released(GradDefense(clip=True), model=model)
    released(GradDefense(), model=model)


def test_an_adversary_tells_noise_from_gradient():
    generator = torch.Generator().manual_seed(0)
    quiet = 1e-4 * torch.randn(640, generator=generator, dtype=torch.float64)
    loud = 1e-2 * torch.randn(640, generator=generator, dtype=torch.float64)
    strong = torch.randn(640, generator=generator, dtype=torch.float64)
    hidden = noisy(torch.cat([quiet, loud, strong]), 1e-2).double()
    assert hidden[:640].mean() == 0
    assert hidden[640:1280].mean() > 0.95
    assert hidden[1280:].mean() == 0


def test_releases_agree_on_what_is_true(released):
    raw = released(None)[2].observation.update.tensors
    defense = GradDefense()
    _, _, seen = released(defense, releases=12)
    view = defense.adversary_view(seen.observation)
    assert view.update is not None
    assert all(torch.equal(view.update.tensors[name], raw[name]) for name in raw)


def test_local_steps_spread_the_noise(released):
    defense = GradDefense()
    local = LocalTraining(sends="difference", epochs=4, learning_rate=0.1)
    _, _, seen = released(defense, local=local)
    std = defense.adversary_view(seen.observation).noise_std
    assert std is not None
    assert list(std.values()) == pytest.approx([0.01 * 0.1 * 2**0.5] * 6)


def test_knowing_it_does_not_hurt(attacked):
    naive, informed = attacked(GradDefense(scale=0.1))
    assert informed > naive - 0.3


@pytest.mark.parametrize("settings", [{"scale": -1.0}, {"scale": 0.0}, {"slices": 1}, {"perturbed": 11}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(InvalidValueError, match="grad_defense"):
        GradDefense(**settings)
