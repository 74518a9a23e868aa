"""Gradient matching on graphs: the baselines that exact attacks on graph networks are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from invertigo.attacks.matching.engine import Matching, Optimiser
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.graph_chart import GraphChart
from invertigo.attacks.matching.lbfgs import LBFGS
from invertigo.attacks.matching.objectives import Objective, SquaredL2, SquaredL2PlusL1
from invertigo.attacks.matching.recipes import DLG
from invertigo.attacks.registry import register
from invertigo.domains import Graphs
from invertigo.models.graph_network import GraphNetwork
from invertigo.types import (
    Observation,
    Paper,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    check_requirements,
)

GRAPHS = frozenset({"graphs"})
NEEDS = frozenset({Requirement.BATCH_SIZE, Requirement.NODE_COUNTS})


@register
@dataclass(frozen=True, kw_only=True)
class GraphDLG:
    """DLG on graphs: node features and edges are relaxed, and the update is matched in squared distance by L-BFGS.

    The number of nodes is given, and the edges too where the adversary knows them (`Knowledge.fields`). A label that is
    not known is read off the gradient of the last bias; those of several graphs are optimised as a softmax.

    Source: Zhu et al. 2019; relaxed as in the comparison of Drencheva et al. 2025 (GRAIN), with 2,000 iterations. A
    line search replaces their steps of fixed length.
    """

    name: ClassVar[str] = "graph_dlg"
    paper: ClassVar[Paper] = DLG.paper
    requires: ClassVar[frozenset[Requirement]] = NEEDS
    domains: ClassVar[frozenset[str]] = GRAPHS
    exact: ClassVar[bool] = False

    iterations: int = 2000
    restarts: int = 1
    history: int = 100
    seconds: float | None = None
    prior_only: bool = False

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        optimiser = LBFGS(iterations=self.iterations, history=self.history)
        matching = _matching(self, observation, SquaredL2(), optimiser, plan=False)
        return _run(matching, observation, generator, progress)


@register
@dataclass(frozen=True, kw_only=True)
class GraphTAG:
    """TAG on graphs: as `graph_dlg`, with an L1 term that weighs early layers more, by Adam.

    Source: Deng et al. 2021, whose attack reads text; the relaxation to graphs is that of `graph_dlg`.
    """

    name: ClassVar[str] = "graph_tag"
    paper: ClassVar[Paper] = Paper(
        "deng2021tag",
        "TAG: Gradient Attack on Transformer-based Language Models",
        "Deng, Jieren and Wang, Yijue and Li, Ji and Wang, Chenghong and Shang, Chao and Liu, Hang and "
        "Rajasekaran, Sanguthevar and Ding, Caiwen",
        2021,
        "Findings of the Association for Computational Linguistics: EMNLP",
        "2103.06819",
    )
    requires: ClassVar[frozenset[Requirement]] = NEEDS
    domains: ClassVar[frozenset[str]] = GRAPHS
    exact: ClassVar[bool] = False

    iterations: int = 2000
    restarts: int = 1
    learning_rate: float = 0.1
    factor: float = 0.01
    seconds: float | None = None
    prior_only: bool = False

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        optimiser = Adam(iterations=self.iterations, learning_rate=self.learning_rate, schedule="cosine")
        matching = _matching(self, observation, SquaredL2PlusL1(self.factor), optimiser)
        return _run(matching, observation, generator, progress)


def _matching(
    attack: GraphDLG | GraphTAG,
    observation: Observation,
    objective: Objective,
    optimiser: Optimiser,
    *,
    plan: bool = True,
) -> Matching:
    check_requirements(attack, observation)
    domain, known = observation.task.domain, observation.knowledge.fields
    if not isinstance(domain, Graphs):
        raise RequirementError(f"Attack '{attack.name}' reads invertigo.domains.Graphs, not {type(domain).__name__}.")
    return Matching(
        name=attack.name,
        objective=objective,
        optimiser=optimiser,
        labels="joint",
        restarts=attack.restarts,
        seconds=attack.seconds,
        plan=plan,
        prior_only=attack.prior_only,
        chart=GraphChart(domain, known["present"].bool(), known.get("adjacency")),
    )


def _run(
    matching: Matching, observation: Observation, generator: torch.Generator, progress: Progress | None
) -> Reconstruction:
    """The attack, with the label of a single graph where the update shows it."""
    known = observation.knowledge
    label = None if known.labels is not None else _label(observation)
    if label is None:
        return matching.run(observation, generator=generator, progress=progress)
    told = replace(observation, knowledge=replace(known, labels=label))
    return replace(matching.run(told, generator=generator, progress=progress), labels_inferred=True)


def _label(observation: Observation) -> torch.Tensor | None:
    """The class whose logit one graph's loss pushes up most; None where the last bias does not show it.

    Source: Zhao et al. 2020 (iDLG).
    """
    model = observation.task.model
    if observation.num_examples != 1 or not isinstance(model, GraphNetwork) or model.level != "graph":
        return None
    last = [name for name, module in model.readout.named_modules() if isinstance(module, torch.nn.Linear)][-1]
    pushed = observation.update.tensors.get(f"readout.{last}.bias")
    if pushed is None:
        return None
    return (pushed if observation.update.kind == "gradient" else -pushed).argmin()[None]
