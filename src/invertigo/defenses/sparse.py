"""Updates with most entries removed: which ones an adversary still sees, and what they take on the wire."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import softshrink

from invertigo.defenses.entries import Tensors, bits_to_bytes, count
from invertigo.types import AdversaryView, Observation, ThreatLevel


def visible_entries(update: Tensors) -> dict[str, Tensor]:
    """1 where an entry was sent, 0 where it was removed. An entry that was zero to begin with counts as removed."""
    return {name: (tensor != 0).to(tensor.dtype) for name, tensor in update.items()}


def sparse_bytes(update: Tensors) -> int:
    """The values that are left at their own width, with their places: an index each, or one bit an entry if shorter.

    A dense message is sent where that is shorter still.
    """
    entries, left = count(update), sum(int(t.count_nonzero()) for t in update.values())
    width = max(t.element_size() for t in update.values())
    indices = left * max(math.ceil(math.log2(max(entries, 2))), 1)
    return min(left * width + bits_to_bytes(min(indices, entries)), entries * width)


def kept_entries_view(observation: Observation, *, per_layer: bool) -> AdversaryView:
    r"""What is known of a release from which the smallest entries of each layer (or of all) were removed.

    A zero tells that the entry was removed, and so that it is smaller than the smallest entry kept, $\tau$. A simulated
    update is compared as it is where something was sent, and elsewhere only by how far it goes beyond $\pm\tau$.
    Leaving removed entries out altogether (`visible`) uses less of what is known and rebuilds less, but is all that can
    be said of a mean over clients, who removed different entries.
    """
    sent = observation.update.tensors
    masks = visible_entries(sent)
    if observation.knowledge.level is ThreatLevel.AGGREGATE:
        return AdversaryView(knows="Zeros are entries that every client removed: they are left out.", visible=masks)
    bounds = {name: _smallest(tensor) for name, tensor in sent.items()}
    if not per_layer:
        bounds = dict.fromkeys(bounds, min(bounds.values()))

    def beyond(update: Tensors) -> dict[str, Tensor]:
        return {k: torch.where(masks[k] > 0, t, softshrink(t, bounds[k])) for k, t in update.items()}

    return AdversaryView(
        knows="Which entries were removed, since they arrive as zeros, and that they are smaller than any that was "
        "sent: simulated ones count only by how much larger they are.",
        surrogate=beyond,
        partial=True,
    )


def _smallest(tensor: Tensor) -> float:
    """Smallest magnitude that was sent; the largest number there is for an empty layer, which then tells nothing."""
    nothing = torch.finfo(tensor.dtype).max
    return float(torch.where(tensor != 0, tensor.abs(), nothing).min())
