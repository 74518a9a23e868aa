"""The secret half of SEER: what reads one image out of the gradient of a whole batch."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.models.building import Shape, weights_drawn_by


class Reader(nn.Module):
    r"""$R(g) = r(D\,g_S)$: some coordinates $S$ of a summed gradient, a linear disaggregator $D$, a reconstructor $r$.

    $D$ has no bias, so what it makes of a sum is the sum of what it makes of each example's gradient.

    Args:
        shape: of the image. entries: (entry,) positions in the concatenated parameters, ascending; scale: (entry,)
            factors on them. crowd: (2,) examples of a client and clients whose gradients are summed. latent: numbers
            between $D$ and $r$.
    """

    entries: Tensor
    scale: Tensor
    crowd: Tensor

    def __init__(self, shape: Shape, entries: Tensor, scale: Tensor, crowd: Tensor, latent: int) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("entries", entries)
        self.register_buffer("scale", scale)
        self.register_buffer("crowd", crowd)
        self.disaggregator = nn.Linear(len(entries), latent, bias=False)
        self.hidden = nn.Linear(latent, latent)
        self.last = nn.Linear(latent, prod(shape))

    def select(self, updates: Mapping[str, Tensor]) -> Tensor:
        """(update, entry) scaled coordinates of tensors (update, *parameter), given in the model's order."""
        chosen, start = [], 0
        for tensor in updates.values():
            flat = tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None]
            own = self.entries[(self.entries >= start) & (self.entries < start + flat.shape[1])] - start
            chosen.append(flat[:, own])
            start += flat.shape[1]
        return torch.cat(chosen, 1) * self.scale

    def forward(self, coordinates: Tensor) -> Tensor:
        """(update, channel, height, width) pixels, in [0, 1] when clamped, of what was selected (update, entry)."""
        return self.last(F.silu(self.hidden(self.disaggregator(coordinates)))).unflatten(1, self.shape)


def new_reader(
    shape: Shape,
    gradients: Mapping[str, Tensor],
    crowd: tuple[int, int],
    *,
    coordinates: int,
    latent: int,
    generator: torch.Generator,
) -> Reader:
    """A reader of at most so many random `coordinates` of each tensor, scaled by the size of single
    examples' `gradients` (example, *parameter).
    """
    entries, scale, start = [], [], 0
    for tensor in gradients.values():
        drawn = torch.randperm(tensor[0].numel(), generator=generator, device=generator.device)[:coordinates].cpu()
        entries.append(drawn.sort().values + start)
        size = tensor.square().mean().sqrt().clamp_min(1e-6)
        scale.append((1 / size).cpu().expand(len(drawn)))
        start += tensor[0].numel()
    with weights_drawn_by(generator):
        reader = Reader(shape, torch.cat(entries), torch.cat(scale).clone(), torch.tensor(crowd), latent)
    return reader.to(next(iter(gradients.values())))


def rebuilt_reader(shape: Shape, tensors: Mapping[str, Tensor]) -> Reader:
    """The reader with these tensors; its sizes are theirs."""
    with weights_drawn_by(torch.Generator().manual_seed(0)):
        reader = Reader(shape, tensors["entries"], tensors["scale"], tensors["crowd"], len(tensors["hidden.bias"]))
    reader = reader.to(tensors["hidden.bias"])
    reader.load_state_dict(dict(tensors))
    return reader.requires_grad_(False)
