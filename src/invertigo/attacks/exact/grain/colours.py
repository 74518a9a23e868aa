"""Colours of nodes: what a node's surroundings look like up to some number of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Colours:
    """The candidates for what a node looks like, `steps` steps around it, that a gradient has not ruled out.

    Colour `c` is a node of colour `own[c]` (one step less) whose neighbours have the colours `around[c]` (one step
    less, sorted). With no steps, `own` and `around` are empty and a colour is a kind of node.

    Args:
        rows: (colour, column) what the layer after these steps reads of such a node: node features at first, then
            hidden features.
        degrees: number of neighbours of each colour.
        kinds: the kind of node of each colour.
    """

    rows: Float[Tensor, "colour column"]
    degrees: tuple[int, ...]
    kinds: tuple[int, ...]
    own: tuple[int, ...] = ()
    around: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.degrees)

    def select(self, kept: Sequence[int]) -> Colours:
        """Only these colours, in this order."""
        return Colours(
            self.rows[torch.tensor(list(kept), dtype=torch.long)],
            tuple(self.degrees[c] for c in kept),
            tuple(self.kinds[c] for c in kept),
            tuple(self.own[c] for c in kept) if self.own else (),
            tuple(self.around[c] for c in kept) if self.own else (),
        )


def mutual(own: Sequence[int], around: Sequence[Sequence[int]]) -> list[int]:
    """The colours that can occur together: each neighbour named must itself be a colour that names the namer.

    Colour `c` stays while for each `b` in `around[c]` some colour that stays has `own == b` and `own[c]` around it.
    Repeated until nothing changes.
    """
    kept = list(range(len(own)))
    while True:
        named = {(own[c], b) for c in kept for b in around[c]}
        staying = [c for c in kept if all((b, own[c]) in named for b in around[c])]
        if len(staying) == len(kept):
            return kept
        kept = staying
