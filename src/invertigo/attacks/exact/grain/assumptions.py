"""What a list of graphs rests on, in words: what the domain says, and where the search was confined to less than that.

Only the former is left under the word `exact`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.attacks.exact.grain.anatomy import Anatomy
from invertigo.attacks.exact.grain.chemistry import AROMATIC, ELEMENT, HYDROGEN, is_molecular
from invertigo.attacks.exact.grain.equivalents import EquivalentGraphs
from invertigo.attacks.exact.grain.pipeline import Evidence
from invertigo.domains.molecules import CHARGES, ELEMENTS, HYDROGENS

CHARGE = 1
FEWEST = "these are the fewest nodes that explain it"


def assumptions(found: EquivalentGraphs, sizes: tuple[int, int], *, given: int = 1) -> tuple[str, ...]:
    """What has to hold for a list of graphs with this gradient to be all there are.

    Args:
        found: the list, the graph that is returned first.
        sizes: the fewest and most nodes of a graph, as far as the adversary knows.
        given: graphs in the batch.
    """
    least, most = sizes
    told = [*_repeated(found)] if not found.complete else []
    if least == most:
        told.append(f"the graph has {most} nodes, as the adversary knows")
    else:
        room = ", which leaves no room for identical copies of this graph"
        fits = 2 * len(found.members[0].colours) <= most
        told.append(f"no graph has more than {most} nodes, the places that the domain has{'' if fits else room}")
    told.append("each group of feature columns holds one member of the group, as the domain says")
    if given > 1:
        told.append(f"the batch has {given} graphs, and {FEWEST}")
    return tuple(told)


def _repeated(found: EquivalentGraphs) -> Iterator[str]:
    """That the graph is not one of those with more nodes that a mean over nodes cannot tell from it."""
    first = found.members[0]
    nodes, edges, parts = len(first.colours), len(first.edges), int(first.cost[1])
    yield "not several identical copies of this graph: the model averages over nodes, which hides repetition"
    if edges >= nodes:
        yield (
            f"{nodes} nodes, not a multiple of that: with a cycle there are larger graphs whose nodes all have the "
            "same surroundings in the same shares (covers), and these have the same gradient"
        )
    elif parts == 1:
        yield "not a larger graph of several parts; no larger connected graph has this gradient"


def unproven(anatomy: Anatomy, evidence: Evidence, graph: Mapping[str, Tensor], sizes: tuple[int, int]) -> list[str]:
    """Where the search was confined to less than the gradient allows, a sentence each; with none it is a proof.

    Args:
        graph: the one that was found.
    """
    domain, told = evidence.domain, []
    if evidence.likely is not None:
        told.append("every atom is one that can exist: its mass fits its element and its bonds their number")
    if domain.vocabulary is not None:
        told.append(f"every node is one of the {len(domain.vocabulary)} kinds in the vocabulary")
    if domain.degree_block is None and evidence.most_degree < sizes[1] - 1:
        told.append(f"no node has more than {evidence.most_degree} neighbours, the most that were tried (most_degree)")
    if sizes[1] > evidence.most_nodes:
        told.append(f"no graph has more than {evidence.most_nodes} nodes, the most that were tried (most_nodes)")
    if evidence.distinct:
        told.append("no node has two neighbours with the same features, as in this graph")
    if not evidence.all_kinds:
        told.append("no other kind of node fits the row space than those found by sampling its corners")
    if evidence.singular:
        told.append("of the blocks that a singular adjacency hides from the row space, those found are all")
    elif not evidence.shown and (anatomy.depth < 2 or singular(graph["adjacency"])):
        told.append("no other features have the same means over neighbourhoods, which are all that the gradient shows")
    if anatomy.model.pool_first:
        told.append("no other neighbourhoods have these sums, which are all that a mean embedding shows")
    if anatomy.noise is not None:
        told.append("the noise is no larger than the attack was told")
    return told


def singular(adjacency: Float[Tensor, "node node"]) -> bool:
    """The adjacency with self-loops has no inverse, so that neighbourhood means do not tell the nodes' features."""
    values = torch.linalg.svdvals(adjacency.double() + torch.eye(len(adjacency), dtype=torch.float64))
    return float(values[-1]) < 1e-9 * float(values[0])


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
