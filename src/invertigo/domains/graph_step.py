"""One training step on graphs as a function of the model and the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor


def graph_step(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """`loss(model(features, adjacency, present), labels)`; answers and labels of nodes go in as one row a node."""

    def step(call: Callable[..., Tensor], fields: Mapping[str, Tensor]) -> Tensor:
        present = fields["present"].bool()
        logits, labels = call(fields["features"], fields["adjacency"], present), fields["labels"]
        if logits.ndim == 3:
            logits, labels = logits[present], labels[present]
        return loss(logits, labels)

    return step
