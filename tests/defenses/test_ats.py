"""ATS applies the operations of its policy, as Pillow does them, and stays in the range of pixels."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from invertigo.defenses import ATS
from invertigo.defenses.picture_operations import OPERATIONS, rotate, shear_y, translate_x, translate_y
from invertigo.defenses.transformation_policy import TABLE, Policy, apply, sizes
from invertigo.types import InvalidValueError

PICTURE = torch.from_numpy(np.random.default_rng(0).integers(20, 200, (1, 3, 12, 10)).astype(np.float64)) / 255


def through_pillow(operation):
    image = Image.fromarray((PICTURE[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    return torch.from_numpy(np.array(operation(image), dtype=np.float64) / 255).permute(2, 0, 1)[None]


def affine(*coefficients):
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("brightness", 0.4), lambda i: ImageEnhance.Brightness(i).enhance(1.4)),
        (("brightness", -0.4), lambda i: ImageEnhance.Brightness(i).enhance(0.6)),
        (("contrast", 0.5), lambda i: ImageEnhance.Contrast(i).enhance(1.5)),
        (("color", -0.3), lambda i: ImageEnhance.Color(i).enhance(0.7)),
        (("sharpness", 0.5), lambda i: ImageEnhance.Sharpness(i).enhance(1.5)),
        (("invert", 0.0), ImageOps.invert),
        (("solarize", 100.0), lambda i: ImageOps.solarize(i, 100)),
        (("posterize", 4.0), lambda i: ImageOps.posterize(i, 4)),
        (("autocontrast", 0.0), ImageOps.autocontrast),
        (("translate_x", 0.3), affine(1, 0, 3, 0, 1, 0)),
        (("translate_y", -0.25), affine(1, 0, 0, 0, 1, -3)),
    ],
    ids=lambda case: case[0] if isinstance(case, tuple) else "",
)
def test_operations_are_those_of_pillow(ours, theirs):
    name, size = ours
    assert torch.allclose(OPERATIONS[name](PICTURE, size), through_pillow(theirs), atol=2.1 / 255)


def test_equalize_makes_the_histogram_even():
    evened = OPERATIONS["equalize"](PICTURE, 0.0)
    for channel, before in zip(evened[0], PICTURE[0]):
        assert torch.equal(channel.flatten().argsort(stable=True), before.flatten().argsort(stable=True))
        assert torch.quantile(channel, 0.5).item() == pytest.approx(0.5, abs=0.05)
        assert channel.min() == 0
        assert channel.max() == 1


def test_geometry_moves_the_right_way():
    dot = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    dot[0, 0, 4, 6] = 1
    assert translate_x(dot, 2 / 9)[0, 0, 4, 4] == 1
    assert translate_y(dot, 2 / 9)[0, 0, 2, 6] == 1
    turned = rotate(dot, 90.0)  # counter-clockwise: right of the middle goes above it
    assert turned[0, 0, 2, 4] == pytest.approx(1)
    assert torch.allclose(rotate(dot, 360.0), dot, atol=1e-6)
    assert shear_y(dot, 0.0)[0, 0, 4, 6] == 1


@pytest.mark.parametrize("number", range(len(TABLE)))
def test_every_operation_keeps_shape_and_range_and_lets_gradients_through(number):
    for size in sizes(number):
        picture = PICTURE.clone().requires_grad_()
        made = apply(((TABLE[number][0], size),), picture)
        assert made.shape == picture.shape
        assert made.min() >= 0
        assert made.max() <= 1
        (slope,) = torch.autograd.grad(made.sum(), picture)
        assert slope.isfinite().all()
        assert slope.any()
        variant = ((TABLE[number][0], size),)
        batched = torch.func.vmap(partial(apply, variant))(PICTURE.expand(2, 1, 3, 12, 10))
        assert torch.allclose(batched[0], made)


@given(st.lists(st.lists(st.integers(-1, 49), min_size=1, max_size=3), min_size=1, max_size=3))
def test_policies_are_read_as_written(sequences):
    text = "+".join("-".join(map(str, sequence)) for sequence in sequences)
    wanted = tuple(tuple(n for n in sequence if n >= 0) for sequence in sequences)
    if all(wanted):
        assert Policy.parse(text).sequences == wanted
    else:
        with pytest.raises(InvalidValueError, match="trained on as they are"):
            Policy.parse(text)


def test_the_policy_of_the_paper_has_its_operations():
    names = [[TABLE[n][0] for n in sequence] for sequence in Policy.parse("3-1-7+43-18-18").sequences]
    assert names == [["translate_x", "contrast", "translate_y"], ["translate_y", "contrast", "contrast"]]


@pytest.mark.parametrize("policy", ["", "50", "3-1-7+", "a-b", "3--7", "-1"])
def test_a_policy_that_says_nothing_is_refused(policy):
    with pytest.raises(InvalidValueError, match="policy"):
        ATS(policy=policy)


def test_every_example_goes_through_one_of_the_variants(released):
    defense = ATS()
    _, batch, seen = released(defense, count=4)
    view = defense.adversary_view(seen.observation)
    possible = [variant for sequence in defense.sequences() for variant in sequence]
    drawn = view.draw(batch.fields, torch.Generator().manual_seed(0))["images"]
    used = set()
    for one, made in zip(batch["images"], drawn):
        fits = [v for v in possible if torch.allclose(apply(v, one[None])[0], made, atol=1e-12)]
        assert fits
        used.add(fits[0])
    assert len(used) > 1
    assert drawn.min() >= 0
    assert drawn.max() <= 1


def test_an_adversary_who_found_the_variants_simulates_the_release(released):
    defense = ATS(policy="43-18")
    _, batch, seen = released(defense, count=2)
    view = defense.adversary_view(seen.observation)
    drawn = view.draw(batch.fields, torch.Generator().manual_seed(0))["images"]
    variants = list(dict.fromkeys(v for sequence in defense.sequences() for v in sequence))
    logits = torch.full((2, len(variants)), -100.0, dtype=torch.float64)
    for i, one in enumerate(batch["images"]):
        fits = [torch.allclose(apply(v, one[None])[0], drawn[i]) for v in variants]
        logits[i, fits.index(True)] = 100.0
    (name, shape), *_ = view.unknowns.items()
    assert shape == (2, len(variants))
    assert torch.allclose(view.transform({**batch.fields, name: logits})["images"], drawn)


def test_knowing_it_does_not_hurt(attacked):
    naive, informed = attacked(ATS(policy="29"))
    assert informed > naive + 2  # inverted: who does not know it rebuilds the negative


def test_no_operations_are_refused():
    with pytest.raises(InvalidValueError, match="operations"):
        ATS(operations=0)
