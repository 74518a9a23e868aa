"""Training by mini-batches, for what is fitted on public data rather than sent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Watch = Callable[[int, int, float], bool | None]
"""Called after each epoch with (done, total, loss); returning True ends the training there."""


def descend(
    model: nn.Module,
    loss_of: Callable[[Tensor], Tensor | None],
    count: int,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    watch: Watch | None = None,
) -> None:
    """Lower `loss_of(indices)` over random parts of `count` examples by Adam, its rate annealed to zero.

    A part for which it returns None is passed over.
    """
    optimiser = torch.optim.Adam(model.parameters(), learning_rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(epochs, 1))
    with torch.enable_grad():
        for epoch in range(epochs):
            last = torch.zeros(())
            for part in shuffled(count, batch_size, generator):
                loss = loss_of(part)
                if loss is None:
                    continue
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                last = loss
            decay.step()
            if watch is not None and watch(epoch + 1, epochs, last.item()):
                break


def shuffled(count: int, batch_size: int, generator: torch.Generator) -> list[Tensor]:
    """Indices of one pass over `count` examples in random order, in parts of at most `batch_size`."""
    return list(torch.randperm(count, generator=generator, device=generator.device).split(batch_size))
