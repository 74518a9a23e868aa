"""Blocks and random directions at right angles, against plain statements of what they must be."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invertigo.defenses.orthogonal import blocks, orthogonal_to, perpendicular


def drawn(n, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(st.integers(2, 200), st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_at_right_angles_and_as_long(entries, seed, length):
    gradient = drawn(entries, seed) * length
    turned = perpendicular(gradient, drawn(entries, seed + 1))
    assert turned.norm().item() == pytest.approx(gradient.norm().item(), rel=1e-9)
    assert abs(float(turned @ gradient / gradient.norm() ** 2)) < 1e-9


def test_the_authors_code_is_exact_for_unit_gradients_only():
    gradient, direction = drawn(50), drawn(50, 1)
    unit = gradient / gradient.norm()
    torch.testing.assert_close(perpendicular(unit, direction, "released"), perpendicular(unit, direction))
    r = direction / direction.norm()
    wrong = r - (r @ gradient / gradient.norm()) * gradient  # as released
    expected = wrong * gradient.norm() / wrong.norm()
    torch.testing.assert_close(perpendicular(gradient, direction, "released"), expected)
    assert abs(float(expected @ gradient / gradient.norm() ** 2)) > 0.1


@pytest.mark.parametrize("gradient", [torch.zeros(5), torch.ones(1)])
def test_without_a_direction_at_right_angles_nothing_is_released(gradient):
    assert not perpendicular(gradient.double(), torch.ones_like(gradient).double()).any()


def test_directions_are_spread_evenly_over_the_plane():
    gradient = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    angles = torch.stack([perpendicular(gradient, drawn(3, s)) for s in range(2000)])
    counts = torch.histc(torch.atan2(angles[:, 1], angles[:, 0]), bins=8, min=-math.pi, max=math.pi)
    assert ((counts - 250).square() / 250).sum() < 24.3  # chi-square with 7 degrees of freedom, 0.1 %


def test_each_layer_alone_unless_small_ones_are_joined():
    sizes = {"a": 300, "b": 12, "c": 500, "d": 10, "e": 40}
    assert blocks(sizes) == [("a",), ("b",), ("c",), ("d",), ("e",)]
    assert blocks(sizes, 50) == [("b", "d", "e"), ("a",), ("c",)]
    assert blocks(sizes, 13) == [("b", "d"), ("a",), ("c",), ("e",)]
    assert blocks({"a": 300, "b": 5}, 64) == [("a", "b")]
    assert blocks(sizes, 10_000) == [tuple(sizes)]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.integers(0, 300))
def test_every_tensor_is_in_one_block_and_no_block_is_too_small(sizes, least):
    named = {f"p{i}": n for i, n in enumerate(sizes)}
    layout = blocks(named, least)
    assert sorted(name for block in layout for name in block) == sorted(named)
    held = [sum(named[n] for n in block) for block in layout]
    assert min(held) >= min(least, sum(sizes))


def test_a_joined_block_is_orthogonal_as_a_whole():
    gradient = {"w": drawn(12).reshape(3, 4), "b": drawn(3, 1), "c": drawn(30, 2)}
    made = orthogonal_to(gradient, [("w", "b"), ("c",)], "eq12", torch.Generator().manual_seed(0))
    assert [tuple(t.shape) for t in made.values()] == [(3, 4), (3,), (30,)]
    product = {name: float((made[name] * gradient[name]).sum()) for name in gradient}
    assert abs(product["w"] + product["b"]) < 1e-9 < min(abs(product["w"]), abs(product["b"]))
    joined = [torch.cat([t["w"].flatten(), t["b"]]).norm() for t in (made, gradient)]
    torch.testing.assert_close(joined[0], joined[1])
