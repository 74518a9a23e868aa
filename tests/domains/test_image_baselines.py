"""Guesses without information, and none that reads the truth without saying so."""

import torch

from invertigo.domains import Images
from invertigo.domains.image_baselines import BASELINES, guesses
from invertigo.types import Batch


def pictures(n, seed):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(truth, public):
    return guesses(truth, public, torch.Generator().manual_seed(0))


def test_only_labelled_oracles_depend_on_the_truth():
    public = pictures(9, 1)
    one, other = made(pictures(4, 2), public), made(pictures(4, 3), public)
    differing = {name for name in one if not one[name].equal(other[name])}
    assert differing == {name for name, label in BASELINES.items() if "oracle" in label}


def test_each_guess_is_what_its_name_says():
    truth, public = pictures(4, 1), pictures(9, 2)
    public[5] = truth[2] + 0.05
    found = made(truth, public)
    assert set(found) == set(BASELINES)
    assert found["mid_grey"].unique().tolist() == [0.5]
    torch.testing.assert_close(found["public_mean"], public.mean(0).expand(4, -1, -1, -1))
    torch.testing.assert_close(found["public_nearest"][2], public[5])
    torch.testing.assert_close(found["own_mean_colour"][..., 0, 0], truth.mean((-2, -1)))
    assert all(any(image.equal(p) for p in public) for image in found["public_random"])


def test_copies_of_the_truth_are_not_public():
    truth, public = pictures(4, 1), pictures(5, 2)
    found, expected = made(truth, torch.cat([truth, truth + 0.001, public])), made(truth, public)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_without_public_data_the_private_mean_does_not_stand_in():
    truth = pictures(4, 1)
    assert set(made(truth, None)) == set(made(truth, truth)) == {"mid_grey", "own_mean_colour"}


def test_the_domain_scores_every_baseline_with_every_metric():
    domain = Images((3, 8, 8), mean=(0.5,) * 3, std=(0.2,) * 3)
    truth, public = (
        Batch({"images": domain.from_pixels(pictures(4, 1))}),
        Batch({"images": domain.from_pixels(pictures(9, 2))}),
    )
    found = domain.baselines(truth, public)
    assert set(found) == set(domain.baseline_labels)
    for scores in found.values():
        assert set(scores.per_example) == {metric.name for metric in domain.metrics}
        assert scores.mean("psnr") < 20
    assert found["public_nearest"].mean("psnr") >= found["public_random"].mean("psnr")
    again = domain.baselines(truth, public)
    assert all(found[name].per_example["psnr"].equal(again[name].per_example["psnr"]) for name in found)
