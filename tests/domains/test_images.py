"""The images domain: normalisation, ranges, configuration and bad input."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertigo.domains import Images, registry
from invertigo.testing.domains import domain_checks
from invertigo.types import Batch, Domain, InvalidValueError, MismatchError

DOMAINS = [
    Images((1, 8, 8)),
    Images((3, 12, 9), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1)),
    Images((2, 8, 8), low=-1.0, high=1.0),
    Images((3, 8, 8), mean=(120.0,) * 3, std=(60.0,) * 3, high=255.0),
]


@pytest.mark.usefixtures("untyped")  # the type checker itself draws from Python's global random state
@pytest.mark.parametrize("check", domain_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: str(domain.shape))
def test_the_contract_of_a_domain_holds(check, domain):
    check(domain)


def test_the_registry_knows_it():
    assert registry["images"] is Images
    assert isinstance(DOMAINS[0], Domain)


@given(st.sampled_from(DOMAINS), st.sampled_from([torch.float32, torch.float64]), st.integers(0, 99))
def test_pixels_make_the_round_trip_in_their_dtype(domain, dtype, seed):
    x = torch.randn(2, *domain.shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    assert domain.to_pixels(x).dtype == dtype
    torch.testing.assert_close(domain.from_pixels(domain.to_pixels(x)), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: str(domain.shape))
def test_bounds_are_the_ends_of_the_range_as_the_model_reads_them(domain):
    low, high = domain.bounds("images")
    assert low.shape == high.shape == (domain.shape[0], 1, 1)
    torch.testing.assert_close(domain.to_pixels(low), torch.full_like(low, domain.low))
    torch.testing.assert_close(domain.to_pixels(high), torch.full_like(high, domain.high))


def test_other_fields_have_no_bounds():
    with pytest.raises(InvalidValueError, match="labels"):
        DOMAINS[0].bounds("labels")


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: str(domain.shape))
def test_the_configuration_survives_json(domain):
    read = Images.from_config(json.loads(json.dumps(domain.config())))
    assert read == domain
    assert hash(read) == hash(domain)


@pytest.mark.parametrize(
    ("images", "low", "high", "observed"),
    [
        (torch.tensor([0.2, 0.9]), 0, 1, False),
        (torch.tensor([-0.4, 0.9]), -1, 1, False),
        (torch.tensor([0.0, 200.0]), 0, 255, False),
        (torch.tensor([0, 1], dtype=torch.uint8), 0, 255, False),
        (torch.tensor([-2.1, 2.6]), -2.1, 2.6, True),
        (torch.tensor([0.5, 200.0]), 0.5, 200, True),
        (torch.tensor([7.5, 7.5]), 7.5, 8.5, True),
    ],
)
def test_the_range_is_inferred(images, low, high, observed):
    domain, seen = Images.infer(images.view(2, 1, 1, 1).expand(2, 3, 4, 4))
    assert domain.shape == (3, 4, 4)
    assert (domain.low, domain.high) == pytest.approx((low, high))
    assert seen is observed


def test_images_without_channels_are_refused():
    with pytest.raises(MismatchError, match="unsqueeze"):
        Images.infer(torch.rand(4, 8, 8))


def test_pixels_that_are_nan_or_out_of_range_count_as_what_is_shown():
    domain, truth = Images((1, 4, 4)), Batch({"images": torch.ones(1, 1, 4, 4)})
    assert domain.score(truth, {"images": torch.full((1, 1, 4, 4), 40.0)}).mean("psnr") == 160
    lost = domain.score(truth, {"images": torch.full((1, 1, 4, 4), float("nan"))})
    assert lost.mean("mse") == pytest.approx(0.25)


def test_scores_do_not_depend_on_the_dtype_of_the_attack():
    generator = torch.Generator().manual_seed(0)
    truth, guess = torch.rand(2, 3, 3, 8, 8, generator=generator)
    single = Images((3, 8, 8)).score(Batch({"images": truth}), {"images": guess})
    double = Images((3, 8, 8)).score(Batch({"images": truth}), {"images": guess.double()})
    for name, scores in single.per_example.items():
        assert scores.dtype == torch.float64
        assert scores.equal(double.per_example[name])


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": (3, 0, 8)},
        {"mean": (0.5,)},
        {"std": (0.1, 0.0, 0.1)},
        {"low": 1.0},
    ],
)
def test_impossible_domains_are_refused(arguments):
    with pytest.raises(InvalidValueError):
        Images(**{"shape": (3, 8, 8), **arguments})


@pytest.mark.parametrize("fields", [{"labels": torch.zeros(2)}, {"images": torch.rand(2, 1, 8, 8)}])
def test_fields_of_another_shape_are_refused_with_both_shapes(fields):
    truth = Batch({"images": torch.rand(2, 3, 8, 8)})
    with pytest.raises(MismatchError, match=r"reconstruction.*3, 8, 8"):
        Images((3, 8, 8)).score(truth, fields)
