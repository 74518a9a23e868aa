"""Graphs as PNG files: molecules as structural formulas, anything else as nodes and links."""

from __future__ import annotations

import io
from collections.abc import Sequence
from colorsys import hls_to_rgb
from hashlib import blake2b
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from invertigo.domains import molecules
from invertigo.domains.labelled_graph import LabelledGraph, in_own_order
from invertigo.types import MissingExtraError
from invertigo.types.extras import require

SIDE = 320
"""Pixels; twice what a report shows, so that it stays sharp on dense screens."""
_FINE = 2
_MARGIN = 0.09
_INK, _PAPER = (70, 74, 84), (255, 255, 255)


def draw(graph: LabelledGraph, widths: Sequence[int]) -> bytes:
    """A PNG of one graph. Molecules need RDKit; without it they are drawn as nodes and links.

    Equal graphs look alike, whatever order their nodes came in.
    """
    graph = in_own_order(graph)
    if tuple(widths) == molecules.BLOCKS and len(graph):
        try:
            return molecule_png(graph)
        except (MissingExtraError, RuntimeError):  # RDKit's refusal of a molecule that cannot be: a bad guess
            pass
    return network_png(graph)


def molecule_png(graph: LabelledGraph) -> bytes:
    """The structural formula. Bond orders are not in the graph; they are worked out from hydrogens and charges."""
    chem, drawing = require("rdkit.Chem", "graph"), require("rdkit.Chem.Draw.rdMolDraw2D", "graph")
    made = _molecule(graph, chem)
    made.UpdatePropertyCache(strict=False)
    canvas = drawing.MolDraw2DCairo(SIDE, SIDE)
    options = canvas.drawOptions()
    options.padding, options.fixedBondLength, options.prepareMolsBeforeDrawing = 0.06, 40, False
    options.bondLineWidth, options.minFontSize = 2, 12
    options.includeMetadata = False  # it would write a file format that refuses molecules no chemist would draw
    require("rdkit.Chem.rdDepictor", "graph").Compute2DCoords(made)
    canvas.DrawMolecule(made)
    canvas.FinishDrawing()
    return canvas.GetDrawingText()


def _molecule(graph: LabelledGraph, chem: Any) -> Any:
    made = chem.RWMol()
    for row in graph.kinds.tolist():
        values = {name: members[min(pick, len(members) - 1)] for (name, members), pick in zip(molecules.GROUPS, row)}
        atom = chem.Atom(values["atomic number"])
        atom.SetFormalCharge(values["formal charge"])
        atom.SetNumExplicitHs(values["hydrogens"])
        atom.SetNoImplicit(True)
        if values["mass"][0] == values["atomic number"] and values["mass"][1]:
            atom.SetIsotope(values["mass"][1])
        made.AddAtom(atom)
    for (a, b), order in bond_orders(graph, chem).items():
        made.AddBond(a, b, {1: chem.BondType.SINGLE, 2: chem.BondType.DOUBLE, 3: chem.BondType.TRIPLE}[order])
    return made


def bond_orders(graph: LabelledGraph, chem: Any) -> dict[tuple[int, int], int]:
    """Orders 1 to 3 of the bonds, such that every atom's valence is as full as it can be made.

    An atom wants as many more bonds as the smallest of its element's valences, at its charge, leaves beside its
    hydrogens and neighbours. Wants are met by a matching of largest size; where a neighbour is left wanting, sulphur,
    phosphorus and their like go up to their next valence.
    """
    bonds = dict.fromkeys(((a, b) for a, b in graph.edges.triu(1).nonzero().tolist()), 1)
    used = [len(near) + molecules.HYDROGENS[row[4]] for row, near in zip(graph.kinds.tolist(), graph.neighbours)]
    steps = [[v for v in _valences(row, chem) if v >= own] for row, own in zip(graph.kinds.tolist(), used)]
    wants = [allowed[0] - own if allowed else 0 for allowed, own in zip(steps, used)]
    while True:
        _meet(wants, bonds)
        left = {b for a in range(len(wants)) if wants[a] for b in graph.neighbours[a] if not wants[b]}
        stretched = next((node for node in sorted(left) if len(steps[node]) > 1), None)
        if stretched is None:
            return bonds
        wants[stretched] = steps[stretched][1] - steps[stretched][0]
        steps[stretched] = steps[stretched][1:]


def _meet(wants: list[int], bonds: dict[tuple[int, int], int]) -> None:
    """Raise bonds between atoms that both want one, as many as possible at a time."""
    from networkx import Graph, max_weight_matching

    while True:
        open_bonds = Graph()
        open_bonds.add_edges_from((a, b) for (a, b), order in bonds.items() if wants[a] and wants[b] and order < 3)
        chosen = max_weight_matching(open_bonds, maxcardinality=True)
        for a, b in chosen:
            bonds[min(a, b), max(a, b)] += 1
            wants[a] -= 1
            wants[b] -= 1
        if not chosen:
            return


def _valences(row: Sequence[int], chem: Any) -> list[int]:
    element, charge = molecules.ELEMENTS[row[0]], molecules.CHARGES[row[1]]
    # An ion bonds like the neutral atom with as many electrons: N+ like C, O- like F.
    same_shell = max(element - charge, 1) if element > 4 else element
    return sorted(v for v in chem.GetPeriodicTable().GetValenceList(same_shell) if v >= 0)


def network_png(graph: LabelledGraph) -> bytes:
    """Nodes and links; nodes of one kind share a colour, and that colour is the same in every picture."""
    side = SIDE * _FINE
    image = Image.new("RGB", (side, side), _PAPER)
    pen = ImageDraw.Draw(image)
    places = ((layout(graph) * (1 - 2 * _MARGIN) + _MARGIN) * side).tolist()
    for a, b in graph.edges.triu(1).nonzero().tolist():
        pen.line([*places[a], *places[b]], fill=_INK, width=max(2, 3 * _FINE - len(graph) // 12))
    radius = side * max(0.012, min(0.04, 0.22 / max(len(graph), 1) ** 0.6))
    for row, (x, y) in zip(graph.kinds.tolist(), places):
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_colour(row), outline=_INK, width=_FINE)
    buffer = io.BytesIO()
    image.resize((SIDE, SIDE), Image.Resampling.LANCZOS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def layout(graph: LabelledGraph, steps: int = 150) -> Float[Tensor, "node 2"]:
    """Places in the unit square, by springs along edges and repulsion between all nodes; the same every time.

    Source: Fruchterman and Reingold, "Graph drawing by force-directed placement", 1991.
    """
    n = len(graph)
    if n < 2:
        return torch.full((n, 2), 0.5, dtype=torch.float64)
    angle = torch.arange(n, dtype=torch.float64) * 2.399963  # the golden angle: no two nodes start in one place
    places = torch.stack([angle.cos(), angle.sin()], 1) * (torch.arange(n) + 1.0).sqrt()[:, None] / n**0.5
    ideal, linked = 1.6 / n**0.5, graph.edges.double()
    for step in range(steps):
        apart = places[:, None] - places[None]
        distance = apart.norm(dim=-1).clamp_min(1e-3)
        force = ideal**2 / distance**2 - linked * distance / ideal
        move = (apart * (force / distance)[..., None] * ideal).sum(1) - 0.1 * places * ideal
        length = move.norm(dim=1, keepdim=True).clamp_min(1e-9)
        places = places + move / length * length.clamp_max(0.2 * (1 - step / steps))
    places = places - places.amin(0)
    span = places.amax(0).clamp_min(1e-6)
    return places / span.max() + (1 - span / span.max()) / 2


def _colour(row: Sequence[int]) -> tuple[int, int, int]:
    """A hue of its own for each kind of node, from the row itself."""
    key = blake2b(repr(list(row)).encode(), digest_size=2).digest()
    red, green, blue = hls_to_rgb(key[0] / 256, 0.5 + 0.25 * key[1] / 256, 0.6)
    return round(red * 255), round(green * 255), round(blue * 255)
