"""What defenses do to `grain`: molecules rebuilt by an attacker who ignores the defense and by one who knows it.

    python benchmarks/grain_defenses.py [--graphs 20] [--seconds 10] [--model gcn] [--only noise clip width ...]

Random Tox21 molecules of up to 25 atoms where the set is found (`INVERTIGO_DATA`), else bundled drugs; standardised
one-hot features, two layers of width 300, untrained, one graph a gradient, unknown size and label. The model computes
in double precision, so that nothing but the defense blurs the gradient. Noise is in units of the root mean square of
the gradient's entries. `exact`: the graph returned is the true one; `class`: the true one is listed among those with
the same gradient; `kinds`: at least one kind of node is certain; `refused`: the attack says why it cannot read the
update. Graphs returned that are not the true one, and lists without it, count as `wrong`.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from grain import drawn, verdict
from torch import nn

import invertigo
from invertigo import data, defenses, models
from invertigo.attacks.exact import GraphRecovery
from invertigo.domains import Graphs
from invertigo.federation import observe, observe_round
from invertigo.types import Batch, LocalTraining, Observation, RequirementError
from invertigo.types.view import AdversaryView

LARGEST = 25
KEYS = ("exact", "class", "kinds", "nothing", "wrong", "refused")


@dataclass(frozen=True)
class Row:
    """A defense with its settings, or something else that a client can do."""

    group: str
    label: str
    defense: str = ""
    settings: Mapping[str, Any] | None = None
    options: Mapping[str, Any] | None = None
    hide: Callable[[str], bool] | None = None


ROWS = (
    Row("none", "nothing"),
    *(
        Row("noise", f"noise of {std:g}", "gaussian_noise", {"std": std, "relative": True})
        for std in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    ),
    *(Row("prune", f"smallest {p} % set to 0", "percentile_pruning", {"percentile": float(p)}) for p in (20, 50, 90)),
    Row("top_k", "largest 10 % sent", "top_k", {"k": 0.1}),
    *(Row("quantise", f"{bits} bits", "quantise", {"bits": bits}) for bits in (16, 8, 4)),
    Row("clip", "clipped to norm 0.1", "clip", {"norm": 0.1}),
    *(
        Row("dp", f"clipped to 1, noise of {m:g} times that", "dp_sgd", {"noise_multiplier": m})
        for m in (1e-6, 0.01, 1.1)
    ),
    *(Row("width", f"width {width}", options={"hidden": width}) for width in (16, 32, 64, 128)),
    Row("coarse", "element, bonds and aromaticity only"),
    Row("hide", "first layer hidden", hide=lambda name: name.startswith("layers.0")),
    Row("hide", "second layer hidden", hide=lambda name: name.startswith("layers.1")),
    Row("hide", "read-out hidden", hide=lambda name: name.startswith("readout")),
    Row("hide", "read-out's first layer hidden", hide=lambda name: name.startswith("readout.0")),
)
COARSE = (0, 2, 6)
"""Groups of the 140 columns that the coarse features keep."""


def coarse(domain: Graphs, batch: Batch) -> tuple[Graphs, Batch]:
    """The batch with three of the eight groups of columns."""
    columns = [column for block in COARSE for column in range(domain.width)[domain.columns[block]]]
    kept = replace(
        domain,
        blocks=tuple(domain.blocks[block] for block in COARSE),
        degree_block=COARSE.index(domain.degree_block or 0),
        mean=tuple((domain.mean or ())[column] for column in columns),
        std=tuple((domain.std or ())[column] for column in columns),
    )
    return kept, Batch({**batch.fields, "features": batch["features"][..., columns]})


def network(domain: Graphs, name: str, options: Mapping[str, Any]) -> nn.Module:
    """The model, in double precision."""
    generator = torch.Generator().manual_seed(0)
    shape = (domain.nodes, domain.width)
    return models.build(name, input_shape=shape, num_classes=2, generator=generator, **options).double()


def seen(row: Row, name: str, domain: Graphs, batch: Batch, seed: int) -> list[Observation | None]:
    """What the naive and the informed attacker hold; None where the two do not differ."""
    model = network(domain, name, row.options or {})
    task = models.graph_task(model, domain, 2)
    local = LocalTraining(mode="eval")
    batch = Batch({key: t.double() if t.is_floating_point() else t for key, t in batch.fields.items()})
    if not row.defense:
        found = observe(task, batch, local, level=3)
        if row.hide is None:
            return [without_label(found), None]
        sent = {key: t * (0.0 if row.hide(key) else 1.0) for key, t in found.update.tensors.items()}
        found = without_label(replace(found, update=replace(found.update, tensors=sent)))
        visible = {key: torch.full_like(t, 0.0 if row.hide(key) else 1.0) for key, t in sent.items()}
        return [found, found.informed(AdversaryView("which layers are hidden", visible=visible))]
    defense = defenses.make(row.defense, **(row.settings or {}))
    secret = torch.Generator().manual_seed(seed)
    round_ = observe_round(task, batch, local, level=3, defense=defense, secret=secret)
    naive = without_label(round_.observation)
    return [naive, naive.informed(defense.adversary_view(naive))]


def without_label(observation: Observation) -> Observation:
    """The adversary does not know the graph's label."""
    return replace(observation, knowledge=replace(observation.knowledge, labels=None))


def outcome(observation: Observation, domain: Graphs, batch: Batch, seconds: float) -> str:
    """How one attack fares."""
    try:
        found = invertigo.reconstruct(observation, "grain", seconds=seconds)
    except RequirementError:
        return "refused"
    assert isinstance(found.certificate, GraphRecovery)
    if found.certificate.kind == "partial":
        return "kinds" if found.certificate.certain_nodes else "nothing"
    return {"exact": "exact", "in class": "class"}.get(verdict(domain, batch, found.certificate), "wrong")


def measure(row: Row, graphs: data.GraphSet, domain: Graphs, chosen: argparse.Namespace) -> tuple[Counter, Counter]:
    """Outcomes of the naive and of the informed attacker over all graphs."""
    told: tuple[Counter, Counter] = (Counter(), Counter())
    for number in range(len(graphs)):
        batch, where = graphs.batch([number], domain), domain
        if row.group == "coarse":
            where, batch = coarse(domain, batch)
        for place, observation in enumerate(seen(row, chosen.model, where, batch, number)):
            if observation is not None:
                told[place][outcome(observation, where, batch, chosen.seconds)] += 1
    return told


def line(counts: Counter) -> str:
    """What happened how often."""
    return ", ".join(f"{counts[key]} {key}" for key in KEYS if counts[key]) or "same"


def main() -> None:
    """Print one row a defense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--model", default="gcn", choices=("gcn", "gat"))
    parser.add_argument("--only", nargs="+")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    some, domain = drawn("tox21", 4 * chosen.graphs, 5, 0)
    kept = [number for number, graph in enumerate(some.graphs) if len(graph) <= LARGEST][: chosen.graphs]
    graphs = some.part(kept)
    print(f"{len(graphs)} molecules of {graphs.name}, {chosen.model}")
    print("| the client sends | naive attacker | informed attacker | CPU s |")
    print("|---|---|---|---|")
    for row in ROWS:
        if chosen.only and row.group not in chosen.only:
            continue
        started = time.process_time()
        naive, informed = measure(row, graphs, domain, chosen)
        print(f"| {row.label} | {line(naive)} | {line(informed)} | {time.process_time() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
