"""How many private labels were rebuilt."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from invertigo.types import MismatchError


def label_accuracy(truth: Tensor, rebuilt: Tensor, matching: Int[Tensor, " truths"]) -> float:
    """Share of the true labels that the rebuilt example matched to them carries, in [0, 1].

    Labels are class indices (batch,) or scores over the classes (batch, classes), of which the largest counts. A true
    example that no rebuilt one was matched to (-1) counts as wrong.
    """
    true, found = _classes(truth), _classes(rebuilt)
    if len(true) != len(matching) or (len(matching) and matching.max() >= len(found)):
        raise MismatchError(
            f"{len(true)} true and {len(found)} rebuilt labels do not fit a matching of {len(matching)} examples."
        )
    correct = (found[matching.clamp_min(0)] == true) & (matching >= 0)
    return correct.double().mean().item()


def node_label_accuracy(truth: Tensor, rebuilt: Tensor, matching: Int[Tensor, " truths"]) -> float:
    """Share of the labels of nodes that the rebuilt graph matched to a true one carries too, in [0, 1].

    Labels are (graph, node), -1 where a graph has no more nodes. Nodes come in any order, so their labels are counted.
    """
    shares = [
        count_accuracy(row[row >= 0], rebuilt[other][rebuilt[other] >= 0]) if other >= 0 else 0.0
        for row, other in zip(truth, matching.tolist())
    ]
    return sum(shares) / max(len(shares), 1)


def count_accuracy(truth: Tensor, rebuilt: Tensor) -> float:
    """Share of the true labels found, whichever example carries them: overlap of the two multisets, in [0, 1].

    The denominator is the longer of the two lists, so labels that were made up cost as much as labels missed.
    """
    true, found = _classes(truth), _classes(rebuilt)
    values = torch.cat([true, found]).unique()  # negative where a loss ignores them
    shared = torch.minimum(*((labels[:, None] == values).sum(0) for labels in (true, found)))
    return shared.sum().item() / max(len(true), len(found), 1)


def _classes(labels: Tensor) -> Int[Tensor, " batch"]:
    indices = labels.argmax(-1) if labels.ndim > 1 else labels
    return indices.detach().cpu().long()
