"""Biases under which so many examples fire in each row that peeling reads one after another, as a fountain code."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.attacks.active.passage import Passage, find_passage
from invertigo.attacks.exact.layer_gradients import layer_gradients
from invertigo.attacks.exact.linear_layer import LinearLayer
from invertigo.attacks.registry import register
from invertigo.types import (
    Batch,
    InvalidValueError,
    LocalTraining,
    Observation,
    Paper,
    Plant,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    Task,
    check_requirements,
)

PAPER = Paper(
    "shariati2026cascading",
    "Cascading Gradient Inversion via LT-Code Inspired Peeling in Federated Learning",
    "Shariati and Alambardar Meybodi",
    2026,
    "arXiv preprint",
    "2609.09659",
)
Rows = Literal["kept", "independent", "mirrored"]


@register
@dataclass(frozen=True, kw_only=True)
class SolitonFree:
    r"""Row j fires for about $d_j$ of B inputs: $b_j = -\mu_j - \sigma_j \Phi^{-1}(1 - d_j / B)$, without any data.

    $\mu_j$ and $\sigma_j$ are mean and deviation of $w_j x$ for independent uniform inputs. The degrees follow the
    robust soliton law, under which peeling (`linear_layer`) goes on for longest: few rows show one example, and each
    that is taken off leaves another row with one.

    Args:
        spread: c of the law's $R = c \ln(B / \delta) \sqrt B$. failure: its $\delta$.
        rows: the model's own weights, normal ones of deviation 1/2, or these with every second row the negative of the
            one before.

    Source: Shariati and Alambardar Meybodi 2026, Soliton-Free (Ind and Mir). As in the paper's table, c = 0.05 and
    delta = 0.4; its released code has delta = 0.1. Degrees at or above B are taken as B - 1/2, where the quantile is
    finite.
    """

    name: ClassVar[str] = "soliton_free"
    paper: ClassVar[Paper] = PAPER
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.CRAFTED_MODEL})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    spread: float = 0.05
    failure: float = 0.4
    rows: Rows = "independent"

    def __post_init__(self) -> None:
        _check(self.spread, self.failure)

    def plant(
        self,
        task: Task,
        local: LocalTraining,
        *,
        public: Batch | None,
        num_examples: int,
        clients: int,
        generator: torch.Generator,
    ) -> Plant:
        """See `types.ActiveAttack`."""
        passage = find_passage(task, local.mode)
        weight, crowd = _rows(passage, self.rows, generator), max(2, num_examples * clients)
        degrees = soliton_degrees(len(weight), crowd, self.spread, self.failure, generator).double()
        low, high = _range(task, passage)
        middle, deviation = (low + high) / 2, (high - low) / 12**0.5
        quantile = torch.special.ndtri(1 - degrees.clamp_max(crowd - 0.5) / crowd)
        bias = -(weight @ middle) - (weight.square() @ deviation.square()).sqrt() * quantile
        return Plant(self.name, passage.planted(weight, bias))

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        return _read(self, observation)


@register
@dataclass(frozen=True, kw_only=True)
class SolitonData:
    """Row j fires for exactly d examples of a public batch as large as the client's: its bias lies midway between the
    d-th and the next largest of the row's outputs on them.

    Args:
        spread, failure, rows: as for `soliton_free`.

    Source: Shariati and Alambardar Meybodi 2026, Soliton-Data.
    """

    name: ClassVar[str] = "soliton_data"
    paper: ClassVar[Paper] = PAPER
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.CRAFTED_MODEL, Requirement.PUBLIC_DATA})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    spread: float = 0.05
    failure: float = 0.4
    rows: Rows = "independent"

    def __post_init__(self) -> None:
        _check(self.spread, self.failure)

    def plant(
        self,
        task: Task,
        local: LocalTraining,
        *,
        public: Batch | None,
        num_examples: int,
        clients: int,
        generator: torch.Generator,
    ) -> Plant:
        """See `types.ActiveAttack`."""
        if public is None or len(public) < 2:
            raise RequirementError("soliton_data sets biases by public examples; give data.public_count above 1.")
        passage = find_passage(task, local.mode)
        weight = _rows(passage, self.rows, generator)
        crowd = min(len(public), max(2, num_examples * clients))
        chosen = torch.randperm(len(public), generator=generator)[:crowd]
        seen = passage.layer.inputs(public[task.domain.inputs][chosen].double()).cpu() @ weight.T
        degrees = soliton_degrees(len(weight), crowd, self.spread, self.failure, generator).clamp_max(crowd - 1)
        ordered = seen.sort(0, descending=True).values
        edges = (ordered.gather(0, degrees[None] - 1) + ordered.gather(0, degrees[None]))[0] / 2
        return Plant(self.name, passage.planted(weight, -edges))

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        return _read(self, observation)


def soliton_law(size: int, spread: float, failure: float) -> Float[Tensor, " size"]:
    r"""Robust soliton probabilities of the degrees 1 to `size`.

    $\rho(1) = 1/B$, $\rho(d) = 1/(d(d-1))$; $\tau(d) = R/(dB)$ below $B/R$ and $R \ln(R/\delta) / B$ there, with
    $R = c \ln(B/\delta) \sqrt B$.

    Source: Luby, LT codes, 2002.
    """
    degree = torch.arange(1, size + 1, dtype=torch.float64)
    ideal = torch.where(degree > 1, 1 / (degree * (degree - 1)).clamp_min(1), 1 / size)
    ripple = spread * math.log(size / failure) * math.sqrt(size)
    spike = min(size, max(1, round(size / ripple)))
    extra = torch.where(degree < spike, ripple / (degree * size), 0.0)
    extra[spike - 1] = max(0.0, ripple * math.log(max(ripple, failure) / failure) / size)
    return (ideal + extra) / (ideal + extra).sum()


def soliton_degrees(rows: int, size: int, spread: float, failure: float, generator: torch.Generator) -> Tensor:
    """(row,) degrees drawn from `soliton_law`."""
    return torch.multinomial(soliton_law(size, spread, failure), rows, replacement=True, generator=generator) + 1


def _check(spread: float, failure: float) -> None:
    if spread <= 0 or not 0 < failure < 1:
        raise InvalidValueError(f"spread={spread} must be above 0, and failure={failure} between 0 and 1.")


def _rows(passage: Passage, how: Rows, generator: torch.Generator) -> Tensor:
    own = passage.layer.module.weight.detach().double().cpu()
    if how == "kept":
        return own
    drawn = torch.randn(own.shape, generator=generator, dtype=torch.float64) / 2
    if how == "mirrored":
        drawn[1::2] = -drawn[: len(drawn[1::2]) * 2 : 2]
    return drawn * passage.layer.arrives.cpu()


def _range(task: Task, passage: Passage) -> tuple[Tensor, Tensor]:
    """Smallest and largest inputs of the layer, feature by feature."""
    low, high = (b.double().expand(passage.layer.shape)[None] for b in task.domain.bounds(task.domain.inputs))
    one, other = passage.layer.inputs(low)[0].cpu(), passage.layer.inputs(high)[0].cpu()
    return one.minimum(other), one.maximum(other)


def _read(attack: SolitonFree | SolitonData, observation: Observation) -> Reconstruction:
    started = time.perf_counter()
    check_requirements(attack, observation)
    passage = find_passage(observation.task, observation.local.mode)
    rows = layer_gradients(observation, passage.layer)
    return replace(LinearLayer().read(observation, passage.layer, rows, started, singles=True), attack=attack.name)
