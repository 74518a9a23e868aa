"""Where an optimisation attack starts: tensors of shape (restart, batch, channel, height, width) in model space."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from invertigo.types import InvalidValueError

Start = Literal["normal", "uniform", "grey", "patterned", "given"]


def starting_images(
    start: Start,
    shape: tuple[int, ...],
    low: Tensor,
    high: Tensor,
    *,
    generator: torch.Generator,
    noise: float = 0.1,
    tile: int = 4,
    given: Tensor | None = None,
) -> Tensor:
    """Candidates to start from.

    `normal`: standard normal in model space. `uniform`: uniform over the range of the pixels. `grey`: the middle
    of the range plus normal noise of `noise` times the range. `patterned`: one random `tile`×`tile` patch repeated
    over the image (Wei et al. 2020). `given`: `given` (e.g. the draw of a trained prior), repeated for each restart.
    """
    like = low
    draw = {"device": generator.device, "dtype": like.dtype, "generator": generator}
    if start == "given":
        if given is None or given.shape[-len(shape) + 1 :] != shape[1:]:
            got = None if given is None else tuple(given.shape)
            raise InvalidValueError(f"start='given' needs `given` of shape {shape[1:]}, not {got}.")
        return given.to(like).expand(shape).clone()
    if start == "normal":
        return torch.randn(shape, **draw).to(like.device)
    if start == "patterned":
        rows, columns = -(-shape[-2] // tile), -(-shape[-1] // tile)
        patch = torch.rand((*shape[:-2], tile, tile), **draw).to(like.device)
        drawn = patch.repeat(*[1] * (len(shape) - 2), rows, columns)[..., : shape[-2], : shape[-1]]
    elif start == "uniform":
        drawn = torch.rand(shape, **draw).to(like.device)
    else:
        drawn = 0.5 + noise * torch.randn(shape, **draw).to(like.device)
    return low + (high - low) * drawn
