"""Bins, trap weights and quantile biases against the recovered shares that were measured for them."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from planting import planted, psnr, recovered
from torch import nn

from invertigo import data
from invertigo.attacks.active import Imprint, Loki, QuantileBias, TrapWeights
from invertigo.data import ImageSet
from invertigo.types import LocalTraining, RequirementError

FEDAVG = LocalTraining(sends="difference", learning_rate=0.1, batch_size=8)


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    return data.load("digits")


@pytest.fixture(scope="module")
def mnist(shared_data) -> ImageSet:
    return data.load("mnist", split="test")


def mean(share, seeds=range(3)) -> float:
    return sum(share(seed=seed) for seed in seeds) / len(seeds)


@pytest.mark.parametrize(("bins", "size"), [(128, 16), (128, 64), (512, 64)])
def test_images_alone_in_equally_likely_bins_follow_their_law(digits, bins, size):
    share = mean(partial(recovered, Imprint(), digits, size=size, hidden=(bins,)), range(6))
    assert share == pytest.approx((1 - 1 / bins) ** (size - 1), abs=0.09)


def test_imprint_recovers_what_was_measured_elsewhere(mnist):
    assert mean(partial(recovered, Imprint(), mnist, size=64, hidden=(512,))) > 0.8
    assert mean(partial(recovered, Imprint(measure="mean"), mnist, size=64, hidden=(128,))) > 0.4


def test_imprint_needs_no_public_data(digits):
    assert recovered(Imprint(), digits, size=16, hidden=(512,), public=0) > 0.3


def test_rows_may_come_in_any_order_and_noise_costs_recoveries(digits):
    plain, permuted, noisy, drowned = (
        mean(partial(recovered, attack, digits, size=32, hidden=(256,)))
        for attack in (Imprint(), Imprint(permute=True), Imprint(noise=0.01), Imprint(noise=0.5))
    )
    assert permuted > plain - 0.15
    assert plain > noisy > drowned


@pytest.mark.slow
def test_bins_of_one_shot_hold_one_image_of_a_crowd_as_often_as_their_law_says(digits):
    """A bin that an image falls into with probability p holds one of n alone in n p (1 - p)^(n - 1) of the rounds."""
    size, rounds, found, expected = 64, 100, [], []
    for seed in range(rounds):
        seen, truth, _ = planted(Imprint(one_shot=True), digits, size=size, hidden=(16,), seed=seed, public=900)
        fires = (seen.task.model.body[1](digits.images.flatten(1)) > 0).double().mean(0)
        either, beyond = fires.max().item(), fires.min().item()
        expected.append(sum(size * p * (1 - p) ** (size - 1) for p in (either - beyond, beyond)))
        try:
            rebuilt = Imprint(one_shot=True).reconstruct(seen, generator=torch.Generator())
        except RequirementError:
            found.append(0)
            continue
        found.append(int((psnr(truth, rebuilt) > 60).sum()))
    assert sum(found) / rounds == pytest.approx(sum(expected) / rounds, abs=0.2)  # three standard errors
    assert sum(expected) / rounds == pytest.approx(2 * (1 - 1 / size) ** (size - 1), abs=0.1)
    assert max(found) == 2


@pytest.mark.parametrize("activation", ["hardtanh", "relu6"])
def test_bins_with_two_edges_outlast_several_local_steps(digits, activation):
    sparse = recovered(Imprint(), digits, size=32, hidden=(256,), activation=activation)
    stepped = recovered(Imprint(), digits, size=32, hidden=(256,), activation=activation, local=FEDAVG)
    nested = recovered(Imprint(), digits, size=32, hidden=(256,), local=FEDAVG)
    assert sparse > 0.75
    assert stepped > 0.5
    assert stepped > nested + 0.2


def test_an_activation_that_always_passes_gradients_on_is_refused(digits):
    with pytest.raises(RequirementError, match="passes a gradient on whatever"):
        recovered(Imprint(), digits, size=8, hidden=(64,), activation="sigmoid")


def test_a_secure_sum_is_one_large_batch_for_bins(mnist):
    assert recovered(Imprint(), mnist, size=16, clients=4, hidden=(512,)) > 0.8


def channelled(
    images: ImageSet, clients: int, bins: int, *, activation: type[nn.Module] = nn.ReLU, stride: int = 1, more: int = 0
) -> nn.Module:
    """A convolution with channels for the pixels and the constant of every client, and `more` behind it."""
    channels, height, width = images.shape
    wide = clients * (channels * stride**2 + 1)
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, wide, 3, stride=stride, padding=1),
        nn.ReLU(),
        *(layer for _ in range(more) for layer in (nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU())),
        nn.Flatten(),
        nn.Linear(wide * (height // stride) * (width // stride), bins),
        activation(),
        nn.Linear(bins, images.num_classes),
    )


def test_kernels_of_its_own_for_each_client_undo_a_secure_sum(digits):
    model = channelled(digits, 4, 128)
    apart = recovered(Loki(), digits, model, size=24, clients=4)
    together = recovered(Imprint(), digits, model, size=24, clients=4)
    assert apart == pytest.approx((1 - 1 / 128) ** 23, abs=0.12)
    assert apart > together + 0.15


@pytest.mark.parametrize(("stride", "more"), [(2, 0), (1, 1), (2, 1)])
def test_kernels_reach_through_strides_and_further_convolutions(digits, stride, more):
    model = channelled(digits, 3, 128, stride=stride, more=more)
    assert recovered(Loki(), digits, model, size=16, clients=3) == pytest.approx((1 - 1 / 128) ** 15, abs=0.15)


@pytest.mark.parametrize("rate", [1e-4, 1e-2, 1e-1])
@pytest.mark.parametrize("steps", [{"batch_size": 3}, {"epochs": 8}])
def test_kernels_and_bins_outlast_eight_local_steps_at_any_rate(digits, rate, steps):
    local = LocalTraining(sends="difference", learning_rate=rate, **steps)
    model = channelled(digits, 4, 128, activation=nn.Hardtanh)
    assert recovered(Loki(), digits, model, size=24, clients=4, local=local) > 0.7


def test_bins_with_one_edge_blur_over_local_steps_but_show_the_images(digits):
    local = LocalTraining(sends="difference", learning_rate=1e-4, batch_size=3)
    seen, truth, _ = planted(Loki(), digits, channelled(digits, 4, 128), size=24, clients=4, local=local)
    near = psnr(truth, Loki().reconstruct(seen, generator=torch.Generator()))
    assert (near > 30).double().mean() > 0.6
    assert (near > 60).double().mean() < 0.4


@pytest.mark.parametrize("rate", [1e-4, 1e-2])
@pytest.mark.parametrize("steps", [{"batch_size": 3}, {"epochs": 8}])
def test_loud_bins_outlast_local_steps_in_a_secure_sum(digits, rate, steps):
    local = LocalTraining(sends="difference", learning_rate=rate, **steps)
    settings = {"size": 24, "clients": 4, "hidden": (512,), "activation": "hardtanh", "local": local}
    loud = recovered(Imprint(), digits, **settings)
    assert loud > 0.35
    assert loud > recovered(Imprint(loud=1.0), digits, **settings) + 0.2


def test_loki_says_how_many_channels_it_lacks(digits):
    with pytest.raises(RequirementError, match="at least 10 are needed"):
        recovered(Loki(), digits, channelled(digits, 4, 16), size=4, clients=5)


@pytest.mark.parametrize(("size", "measured"), [(20, 0.88), (50, 0.64), (100, 0.43)])
def test_quantile_biases_recover_at_least_what_was_measured(mnist, size, measured):
    """The figures count rows that fire for one image; peeling goes on from there."""
    assert recovered(QuantileBias(), mnist, size=size, hidden=(1000,)) > measured - 0.05


@pytest.mark.slow
def test_quantile_biases_on_a_large_batch(mnist):
    assert recovered(QuantileBias(), mnist, size=200, hidden=(1000,)) > 0.25


def isolated(attack, images: ImageSet, **options) -> float:
    """Share of the batch for which some row of the planted layer fires alone."""
    seen, truth, _ = planted(attack, images, **options)
    model = seen.task.model
    fires = model.body[1](truth.flatten(1)) > 0
    return fires[:, fires.sum(0) == 1].any(1).double().mean().item()


@pytest.mark.parametrize(("size", "measured"), [(20, 0.875), (50, 0.642), (100, 0.434), (200, 0.252)])
def test_rows_isolate_no_smaller_share_than_was_measured_on_fashion(mnist, size, measured):
    """Handwritten digits are easier to tell apart than clothes."""
    share = mean(partial(isolated, QuantileBias(), mnist, size=size, hidden=(1000,)), range(2))
    assert measured - 0.05 < share < measured + 0.25


def test_rows_that_are_paired_with_public_images_isolate_more(mnist):
    alone, paired = (
        mean(partial(isolated, QuantileBias(pairs=pairs), mnist, size=20, hidden=(100,)), range(2))
        for pairs in (False, True)
    )
    assert paired > alone + 0.05


def test_a_share_of_crafted_rows_leaves_the_others_as_they_were(digits):
    seen, _, _ = planted(QuantileBias(share=0.1), digits, size=16, hidden=(100,), seed=0)
    honest, _, _ = planted(QuantileBias(share=0.1), digits, size=16, hidden=(100,), seed=0)
    weight = seen.parameters["body.1.weight"]
    torch.testing.assert_close(weight, honest.parameters["body.1.weight"])
    assert weight[:10].std().item() == pytest.approx(weight[10:].std().item(), rel=0.3)


def test_trap_weights_are_balanced_and_mirrored_until_they_are_jittered(digits):
    plain, jittered = (
        planted(TrapWeights(jitter=jitter), digits, size=16, hidden=(200,))[0].parameters["body.1.weight"].double()
        for jitter in (0.0, 1.0)
    )
    assert bool(((plain < 0).sum(1) == 32).all())
    assert (jittered < 0).sum(1).double().std().item() == pytest.approx(4.0, rel=0.3)  # sqrt(64) / 2
    for weight in (plain, jittered):
        above, below = weight.clamp_min(0).sum(1), -weight.clamp_max(0).sum(1)
        torch.testing.assert_close(above, 0.95 * below, rtol=1e-4, atol=1e-4)
    row = plain[0]
    torch.testing.assert_close(row[row > 0].sort().values, 0.95 * (-row[row < 0]).sort().values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_trap_weights_recover_images_jittered_or_not(mnist, jitter):
    assert recovered(TrapWeights(scale=0.9, jitter=jitter), mnist, size=20, hidden=(1000,)) > 0.85


def test_convolutions_before_the_hidden_layer_pass_pixels_on(mnist):
    assert recovered(Imprint(), mnist, "lenet", size=32, hidden=256, width=16, activation="relu") > 0.7
