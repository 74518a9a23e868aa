"""What is public about molecules: which atoms exist, and which rings are common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from invertigo.domains import Graphs
from invertigo.domains.molecules import BLOCKS, ELEMENTS, HYBRIDISATIONS, HYDROGENS, MASSES

ELEMENT, _CHARGE, DEGREE, _CHIRAL, HYDROGEN, MASS, AROMATIC, HYBRID = range(8)
LARGEST_ATOM = {"S": 2, "SP": 2, "SP2": 4, "SP3": 4, "SP3D": 5, "SP3D2": 6, "UNSPECIFIED": 8}
"""Neighbours, hydrogens included, of an atom of that hybridisation; lone pairs take the other places."""
RING_COST = {3: 0.5, 4: 0.6, 5: 0.05, 6: 0.0, 7: 0.5, 8: 1.0}
MACROCYCLE = 1.5
"""What an edge costs whose smallest ring has that many members; rings of nine and more cost the most."""
AROMATIC_RINGS = range(5, 8)
NODE_COST = 0.15
"""What a node beyond the fewest costs: of two sizes that the gradient cannot tell apart, the smaller is likelier."""


def is_molecular(domain: Graphs) -> bool:
    """The nodes are atoms, in the groups of `domains.molecules`."""
    return domain.blocks == BLOCKS


def possible_atoms(kinds: Int[Tensor, "kind group"]) -> Bool[Tensor, " kind"]:
    """Which kinds are atoms at all: the mass is the element's, and there is room for the neighbours and hydrogens."""
    element = torch.tensor(ELEMENTS)[kinds[:, ELEMENT]]
    weighed = torch.tensor([atomic for atomic, _ in MASSES])[kinds[:, MASS]]
    around = kinds[:, DEGREE] + torch.tensor(HYDROGENS)[kinds[:, HYDROGEN]]
    room = torch.tensor([LARGEST_ATOM[name] for name in HYBRIDISATIONS])[kinds[:, HYBRID]]
    aromatic = kinds[:, AROMATIC] == 1
    flat = (kinds[:, HYBRID] == HYBRIDISATIONS.index("SP2")) & (kinds[:, DEGREE] >= 2) & (around <= 3)
    carbon = (element != 6) | (around <= 4)
    return (element == weighed) & (around <= room) & carbon & (flat | ~aromatic)


def ring_cost(sizes: Counter[int]) -> float:
    """How uncommon these rings are; `sizes` counts edges by the size of their smallest ring."""
    return sum((count * RING_COST.get(size, MACROCYCLE) for size, count in sizes.items()), 0.0)


def impossible_rings(aromatic: Sequence[bool], rings: dict[tuple[int, int], int]) -> int:
    """Aromatic atoms on no ring of five to seven members; `rings` has the smallest ring of each edge that is on one."""
    fine = {node for edge, size in rings.items() if size in AROMATIC_RINGS for node in edge}
    return sum(flag and node not in fine for node, flag in enumerate(aromatic))
