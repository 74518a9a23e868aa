"""How a loss weighs the examples of a batch, learned by asking it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

FEW = 64
"""Up to so many targets are all asked one by one; of more, this many, and the rest only where these differ."""
AGREE = 1e-3


@dataclass(frozen=True)
class Reduction:
    r"""$L = \sum_i a_{y_i}\,\ell_i / N$ with the weights $a$ of the targets (mean 1), and $N = \sum_i a_{y_i}$
    (`normalised`, as PyTorch's "mean" with class weights and `ignore_index`) or $N = 1$ ("sum").

    An example alone has the loss $\ell$, or $a\,\ell$ of a sum, whose weights are therefore 1 here.
    """

    weights: Tensor
    normalised: bool

    def shares(self, targets: Tensor) -> Tensor:
        """(row,) the factor with which each example's own loss enters that of a batch with these target numbers."""
        if not self.normalised:
            return torch.ones_like(self.weights[targets])
        own = self.weights[targets]
        return own / own.sum().clamp_min(torch.finfo(own.dtype).tiny)

    def examples(self, parts: Tensor) -> Tensor:
        """(target,) fraction of the batch that each target makes up, from the parts (target,) it has in the loss."""
        own = self.weights.to(parts)
        counted = torch.where(own > 0, parts / own.clamp_min(1e-300), 0.0) if self.normalised else parts
        return counted / counted.sum().clamp_min(1e-300)

    @property
    def plain(self) -> bool:
        """The mean over examples that all count alike."""
        return self.normalised and bool((self.weights - 1).abs().max() < AGREE)


def reduction_of(gradients: Callable[[Tensor], Tensor], count: int) -> Reduction:
    """The reduction of a loss with `count` different targets.

    Args:
        gradients: of target numbers (row,), the derivatives (row, output) of the loss of this whole batch by the
            model's output, where that is the same for all rows.
    """
    numbers = torch.arange(count)
    together = gradients(numbers.repeat(2))[:count]  # twice: a sum of one target looks like a mean of it
    asked = numbers if count <= FEW else numbers[:: count // FEW][:FEW]
    weights = _weights(gradients, together, asked)
    uniform = bool((weights - weights[0]).abs().max() < AGREE * weights.abs().max())
    if uniform:
        weights = weights[:1].expand(count)
    elif len(asked) < count:
        weights = _weights(gradients, together, numbers)
    if bool((weights - 1).abs().max() < AGREE):
        return Reduction(torch.ones_like(weights), False)
    return Reduction(weights / weights.mean().clamp_min(1e-12), True)


def _weights(gradients: Callable[[Tensor], Tensor], together: Tensor, asked: Tensor) -> Tensor:
    """(target,) the share of each one's own derivative that it has in the batch; 0 for those that are ignored."""
    alone = torch.cat([gradients(number[None]) for number in asked]).nan_to_num()
    both = (together[asked].nan_to_num() * alone).sum(1)
    return (both / alone.square().sum(1)).nan_to_num().clamp_min(0).double()
