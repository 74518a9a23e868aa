"""Rows of a hidden layer that fire for a single image of the batch: trap weights and quantile biases."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.active.passage import find_passage
from invertigo.attacks.exact.first_layer import FirstLinear
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

CRAFTED = frozenset({Requirement.CRAFTED_MODEL})
IMAGES = frozenset({"images"})


@register
@dataclass(frozen=True, kw_only=True)
class TrapWeights:
    r"""Rows with as many negative as positive weights, the negative ones a little larger: few images outweigh them.

    Half of a row's entries, drawn at random, are $z = -|\mathcal N(0, \sigma^2)|$; the other half are $-s z$. On inputs
    that are not negative, a row fires seldom, and its gradient ratio $g_W / g_b$ is the image when it fires for one
    alone. What is read back is proven by simulating it (`attacks.linear_layer`).

    Args:
        scale: s; the nearer to 1, the more rows fire. The best value depends on the data and the batch size.
        deviation: sigma.
        jitter: 0 for the paper's rows; towards 1, the positive sizes are less and less the negative ones' mirror image
            and the number of negative entries varies as chance would have it, while their sums keep the ratio s.

    Source: Boenisch et al. 2023, trap weights; sigma, s and the zero bias as in the public re-implementation. The
    jitter, for an adversary who knows that clients look for exact balance, is ours.
    """

    name: ClassVar[str] = "trap_weights"
    paper: ClassVar[Paper] = Paper(
        "boenisch2023curious",
        "When the Curious Abandon Honesty: Federated Learning Is Not Private",
        "Boenisch, Franziska and Dziedzic, Adam and Schuster, Roei and Shahin Shamsabadi, Ali and Shumailov, Ilia "
        "and Papernot, Nicolas",
        2023,
        "IEEE European Symposium on Security and Privacy",
        "2112.02918",
    )
    requires: ClassVar[frozenset[Requirement]] = CRAFTED
    domains: ClassVar[frozenset[str]] = IMAGES
    exact: ClassVar[bool] = True

    scale: float = 0.95
    deviation: float = 0.5
    jitter: float = 0.0

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
        weight = self._rows(passage.layer.module.weight.shape, generator)
        # The rows read x - low, which is not negative.
        low = task.domain.bounds(task.domain.inputs)[0].double().expand(passage.layer.shape)[None]
        bias = -(weight @ passage.layer.inputs(low)[0].cpu())
        return Plant(self.name, passage.planted(weight, bias))

    def _rows(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        rows, features = shape
        size = self.deviation * torch.randn(shape, generator=generator, dtype=torch.float64).abs()
        order = torch.rand(shape, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
        half, paired = features // 2, order % max(features // 2, 1)
        # Entries of the same place in either half of a row's random order are each other's mirror image.
        mirrored = size.gather(1, paired)
        mixed = (1 - self.jitter) * mirrored + self.jitter * size
        cut = half + self.jitter * features**0.5 / 2 * torch.randn(rows, 1, generator=generator, dtype=torch.float64)
        negative = order < cut.round().clamp(1, features - 1)
        positive = (order < 2 * half) & ~negative
        below, above = mixed * negative, mixed * positive
        return self.scale * above * (below.sum(1, keepdim=True) / above.sum(1, keepdim=True)) - below

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        return _read(self, observation)


@register
@dataclass(frozen=True, kw_only=True)
class QuantileBias:
    r"""Normal rows whose bias lets one in `num_examples` images through: $w \sim \mathcal N(0, I)$,
    $b = \Phi^{-1}(1/B) \sqrt N$ on standardised inputs.

    The inputs are standardised by the mean and deviation of public pixels, folded into weights and bias; without public
    data, by those of uniform noise. `calibrated` sets each row's bias to its own quantile over public data instead, and
    `share` crafts only that part of the rows, which whole-layer statistics do not notice.

    Args:
        pairs: redraw rows until each fires for exactly one example of a public batch of `num_examples`, every example
            serving one row (PAIRS); what chance leaves over stays as drawn.
        draws: rounds of drawing all open rows anew without any progress before PAIRS goes on to the next public batch.

    Source: Nowak et al. 2024 (QBI and PAIRS); calibration and partial crafting are ours.
    """

    name: ClassVar[str] = "quantile_bias"
    paper: ClassVar[Paper] = Paper(
        "nowak2024qbi",
        "QBI: Quantile-Based Bias Initialization for Efficient Private Data Reconstruction in Federated Learning",
        "Nowak, Micha V. and Bott, Tim P. and Khachatryan, David and Puppe, Frank and Krenzer, Adrian and Hekalo, Amar",
        2024,
        "arXiv preprint",
        "2406.18745",
    )
    requires: ClassVar[frozenset[Requirement]] = CRAFTED
    domains: ClassVar[frozenset[str]] = IMAGES
    exact: ClassVar[bool] = True

    calibrated: bool = False
    share: float = 1.0
    pairs: bool = False
    draws: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InvalidValueError(f"share is {self.share}; it is the part of the rows to craft, above 0, at most 1.")
        if self.draws < 1:
            raise InvalidValueError(f"draws is {self.draws}; PAIRS draws at least once.")

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
        module = passage.layer.module
        crafted = max(1, round(self.share * module.out_features))
        features = module.in_features
        mean, deviation = _pixels(task, passage.layer, public)
        crowd = max(2, num_examples * clients)
        cut = torch.special.ndtri(torch.tensor(1 / crowd, dtype=torch.float64)) * features**0.5
        drawn = torch.randn(crafted, features, generator=generator, dtype=torch.float64)
        if self.pairs:
            if public is None:
                raise RequirementError("PAIRS chooses rows by public examples; give data.public_count above 0.")
            standard = (passage.layer.inputs(public[task.domain.inputs].double()).cpu() - mean) / deviation
            drawn = paired_rows(drawn, float(cut), standard * passage.layer.arrives.cpu(), crowd, self.draws, generator)
        weight = module.weight.detach().double().cpu().clone()
        # At the size of the honest rows where only some are crafted, so that they do not stand out.
        factor = 1.0 if self.share == 1.0 else weight.std().item() * deviation
        weight[:crafted] = factor * drawn / deviation
        bias = module.bias.detach().double().cpu().clone()
        bias[:crafted] = factor * (cut - drawn.sum(1) * mean / deviation)
        if self.calibrated and public is not None:
            seen = passage.layer.inputs(public[task.domain.inputs].double()).cpu() @ weight[:crafted].T
            bias[:crafted] = -seen.quantile(1 - 1 / crowd, dim=0)
        return Plant(self.name, passage.planted(weight, bias))

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        return _read(self, observation)


def paired_rows(rows: Tensor, cut: float, inputs: Tensor, size: int, draws: int, generator: torch.Generator) -> Tensor:
    """`rows` (row, feature), as many as possible redrawn so that row x + cut > 0 for one example x of a batch alone.

    Batches of `size` are taken from the public `inputs` (example, feature); within one, no example serves two rows.
    """
    rows, free = rows.clone(), torch.ones(len(rows), dtype=torch.bool)
    for batch in inputs[torch.randperm(len(inputs), generator=generator)].split(size):
        taken, idle = torch.zeros(len(batch), dtype=torch.bool), 0
        while bool(free.any()) and not bool(taken.all()) and idle < draws:
            fires = rows[free] @ batch.T + cut > 0
            only = (fires.sum(1) == 1).nonzero()[:, 0]
            example = fires[only].int().argmax(1)
            # The first row of each example that is not taken yet keeps it.
            fresh = ~taken[example]
            found, first = _first_of_each(example[fresh])
            taken[found] = True
            free[free.nonzero()[:, 0][only[fresh][first]]] = False
            rows[free] = torch.randn(int(free.sum()), rows.shape[1], generator=generator, dtype=rows.dtype)
            idle = 0 if len(found) else idle + 1
    return rows


def _first_of_each(values: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct values, and where each stands first."""
    distinct, which = values.unique(return_inverse=True)
    place = torch.full((len(distinct),), len(values)).scatter_reduce(0, which, torch.arange(len(values)), "amin")
    return distinct, place


def _pixels(task: Task, layer: FirstLinear, public: Batch | None) -> tuple[float, float]:
    """Mean and deviation of the layer's inputs."""
    if public is not None:
        read = layer.inputs(public[task.domain.inputs].double())
        return read.mean().item(), max(read.std().item(), 1e-6)
    low, high = (float(bound.mean()) for bound in task.domain.bounds(task.domain.inputs))
    return (low + high) / 2 + float(layer.shift[0]), (high - low) / 12**0.5


def _read(attack: TrapWeights | QuantileBias, observation: Observation) -> Reconstruction:
    started = time.perf_counter()
    check_requirements(attack, observation)
    passage = find_passage(observation.task, observation.local.mode)
    rows = layer_gradients(observation, passage.layer)
    found = LinearLayer().read(observation, passage.layer, rows, started, singles=True)
    return replace(found, attack=attack.name)
