"""A random projection of whole updates to a few hundred numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sketch:
    r"""$s_j(g) = \sum_{i:\,b(i) = j} \sigma(i)\, g_i$ with random buckets $b$ and signs $\sigma$: a count sketch.

    A linear map that keeps inner products in expectation, at one addition an entry and without a stored matrix.

    Source: Charikar, Chen and Farach-Colton, "Finding frequent items in data streams", 2002.
    """

    buckets: Mapping[str, Tensor]
    signs: Mapping[str, Tensor]
    size: int

    @classmethod
    def draw(cls, parameters: Mapping[str, Tensor], size: int, generator: torch.Generator) -> Sketch:
        """A projection of updates with the names and shapes of `parameters`."""
        buckets, signs = {}, {}
        for name, like in parameters.items():
            drawn = torch.randint(2 * size, (like.numel(),), generator=generator, device=generator.device)
            buckets[name] = (drawn // 2).to(like.device)
            signs[name] = (2 * (drawn % 2) - 1).to(like)
        return cls(buckets, signs, size)

    def __call__(self, updates: Mapping[str, Tensor]) -> Tensor:
        """(update, size) of tensors (update, *layer) by name; differentiable."""
        count = len(next(iter(updates.values())))
        total = next(iter(self.signs.values())).new_zeros(count, self.size)
        for name, buckets in self.buckets.items():
            total = total.index_add(1, buckets, updates[name].flatten(1) * self.signs[name])
        return total
