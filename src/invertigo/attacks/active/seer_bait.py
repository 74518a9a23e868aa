"""Public batches as a client may hold them, and which example of each SEER is to single out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from invertigo.domains import Images


@dataclass(frozen=True)
class Drawn:
    """Batches (batch, example, ...), and which example of each has most of the property: in it, and of all (batch,)."""

    images: Tensor
    labels: Tensor
    wanted: Tensor
    examples: Tensor


@dataclass(frozen=True)
class Bait:
    """Labelled public images with a score of some property (image,), for crowds of `clients` of `size` examples each.

    With an infinite `threshold` every batch is drawn at random. Else the first client of each crowd holds one example
    beyond it, and all other examples lie below.
    """

    domain: Images
    images: Tensor
    labels: Tensor
    score: Tensor
    size: int
    clients: int
    threshold: float = math.inf

    @property
    def enough(self) -> bool:
        """There are images for a batch, and some on each side of the threshold."""
        beyond = int((self.score > self.threshold).sum())
        return len(self.score) >= self.size and (not math.isfinite(self.threshold) or 0 < beyond < len(self.score))

    def draw(self, crowds: int, generator: torch.Generator) -> Drawn:
        """`crowds` times `clients` batches, those of a crowd next to each other."""
        many, device = crowds * self.clients, self.images.device
        shape = many, self.size
        if math.isfinite(self.threshold):
            beyond = (self.score > self.threshold).nonzero()[:, 0]
            below = (self.score <= self.threshold).nonzero()[:, 0]
            chosen = below[_integers(len(below), shape, generator).to(device)]
            chosen[:: self.clients, 0] = beyond[_integers(len(beyond), (crowds,), generator).to(device)]
        else:
            keys = torch.rand(many, len(self.score), generator=generator, device=generator.device)
            chosen = keys.topk(self.size).indices.to(device)
        wanted = self.score[chosen].argmax(1)
        examples = chosen.gather(1, wanted[:, None])[:, 0]
        return Drawn(self.images[chosen], self.labels[chosen], wanted, examples)

    def pixels(self, examples: Tensor) -> Tensor:
        """(image, channel, height, width) in [0, 1]."""
        return self.domain.to_unit(self.images[examples])


def brightness(domain: Images, images: Tensor) -> Tensor:
    """(image,) mean of all pixels, 0 to 1."""
    return domain.to_unit(images).flatten(1).mean(1)


def _integers(below: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(below, shape, generator=generator, device=generator.device)
