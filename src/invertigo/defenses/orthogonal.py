"""Random vectors at right angles to a gradient, block by block, as long as the gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Tensors = Mapping[str, Tensor]
Projection = Literal["eq12", "released"]
Block = tuple[str, ...]
"""Names of the tensors that are projected together, as one vector."""


def blocks(sizes: Mapping[str, int], least: int = 0) -> list[Block]:
    """Each tensor for itself; those with fewer than `least` entries join, with the next larger ones until there are
    `least` entries together.

    Args:
        sizes: entries of each tensor, in the order of the model's parameters.
    """
    joined: set[str] = set()
    held = 0
    for name in sorted(sizes, key=lambda name: sizes[name]):
        if sizes[name] >= least and (not joined or held >= least):
            break
        joined.add(name)
        held += sizes[name]
    together = tuple(name for name in sizes if name in joined)
    return [together] * bool(together) + [(name,) for name in sizes if name not in joined]


def orthogonal_to(
    gradient: Tensors, layout: Sequence[Block], projection: Projection, generator: torch.Generator
) -> dict[str, Tensor]:
    """A random gradient of the same form, at right angles to `gradient` in every block; see `perpendicular`."""
    released: dict[str, Tensor] = {}
    for block in layout:
        own = torch.cat([gradient[name].detach().double().flatten() for name in block])
        drawn = torch.randn(len(own), generator=generator, device=generator.device, dtype=own.dtype).to(own.device)
        turned = perpendicular(own, drawn, projection)
        parts = turned.split([gradient[name].numel() for name in block])
        released |= {name: part.reshape(gradient[name].shape).to(gradient[name]) for name, part in zip(block, parts)}
    return {name: released[name] for name in gradient}


def perpendicular(
    gradient: Float[Tensor, " entry"], drawn: Float[Tensor, " entry"], projection: Projection = "eq12"
) -> Float[Tensor, " entry"]:
    r"""The part of a random direction that is orthogonal to the gradient, stretched to the gradient's length.

    $u = r - \frac{\langle r, g\rangle}{\langle g, g\rangle}\, g$ with $r = \text{drawn} / \lVert\text{drawn}\rVert$,
    then $\lVert g\rVert\, u / \lVert u\rVert$. A zero gradient, or one with a single entry, leaves no direction: zeros.

    `released` is what CENSOR's published code computes: it divides by $\lVert g\rVert$ instead of $\lVert g\rVert^2$,
    so the result is orthogonal only where $\lVert g\rVert = 1$.
    """
    length = gradient.norm()
    if length == 0 or len(gradient) < 2:
        return torch.zeros_like(gradient)
    unit, drawn = gradient / length, drawn / drawn.norm()
    along = drawn @ unit * (1.0 if projection == "eq12" else length)
    turned = drawn - along * unit
    rest = turned.norm()
    if rest < math.sqrt(torch.finfo(turned.dtype).eps):
        return torch.zeros_like(gradient)
    return turned * (length / rest)
