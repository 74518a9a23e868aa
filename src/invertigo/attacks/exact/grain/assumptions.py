"""What the word `exact` rests on: the assumptions under which no other graph has the gradient, in words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from invertigo.attacks.exact.grain.chemistry import AROMATIC, ELEMENT, HYDROGEN, is_molecular
from invertigo.attacks.exact.grain.pipeline import Evidence
from invertigo.domains.molecules import CHARGES, ELEMENTS, HYDROGENS

CHARGE = 1


def assumptions(evidence: Evidence, nodes: int, edges: int, *, parts: int = 1, given: int = 1) -> tuple[str, ...]:
    """What has to hold for a list of graphs with this gradient to be all there are.

    Args:
        nodes, edges, parts: of the graph that is returned.
        given: graphs in the batch.
    """
    domain = evidence.domain
    told = ["not several identical copies of this graph: the model averages over nodes, which hides repetition"]
    if edges >= nodes:
        told.append(
            f"{nodes} nodes, not a multiple of that: with a cycle there are larger graphs whose nodes all have the "
            "same surroundings in the same shares (covers), and these have the same gradient"
        )
    elif parts == 1:
        told.append("not a larger graph of several parts; no larger connected graph has this gradient")
    told.append("each group of feature columns holds one member of the group, as the domain says")
    if given > 1:
        told.append(f"the batch has {given} graphs, and these are the fewest nodes that explain it")
    if evidence.likely is not None:
        told.append("every atom is one that can exist: its mass fits its element and its bonds their number")
    if domain.vocabulary is not None:
        told.append(f"every node is one of the {len(domain.vocabulary)} kinds in the vocabulary")
    if domain.degree_block is None:
        told.append("no node has more neighbours than the most that were tried (most_degree)")
    if evidence.distinct:
        told.append("no node has two neighbours with the same features, as in this graph")
    if not evidence.all_kinds:
        told.append("no other kind of node fits the row space than those found by sampling its corners")
    if evidence.singular:
        told.append("of the blocks that a singular adjacency hides from the row space, those found are all")
    return tuple(told)


def implausible_alone(evidence: Evidence, kinds: Sequence[int], aromatic_rings: bool = True) -> str:
    """Why a molecule is not one that clients hold by itself, or nothing; `kinds` of its atoms.

    An ion comes with others in a salt, and a mean over nodes cannot tell one ion from two: so its number is open.
    """
    if not is_molecular(evidence.domain) or evidence.kinds is None:
        return ""
    atoms = evidence.kinds[torch.tensor(list(kinds), dtype=torch.long)]
    charge = int(_values(CHARGES, atoms[:, CHARGE]).sum())
    if charge:
        return f"it carries a charge of {charge:+d}"
    electrons = int(_values(ELEMENTS, atoms[:, ELEMENT]).sum() + _values(HYDROGENS, atoms[:, HYDROGEN]).sum())
    if electrons % 2:
        return "it has an odd number of electrons"
    if not aromatic_rings and bool(atoms[:, AROMATIC].any()):
        return "an aromatic atom of it is on no ring that could be aromatic"
    return ""


def _values(names: Sequence[int], members: Tensor) -> Tensor:
    return torch.tensor(names)[members]
