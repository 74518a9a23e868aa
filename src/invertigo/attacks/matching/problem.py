"""Gradient matching as an optimisation problem over flat candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from invertigo.attacks.matching.chart import Chart
from invertigo.attacks.matching.lean_convolution import LeanConvolutions
from invertigo.attacks.matching.objectives import Nothing, Objective, noise_share
from invertigo.attacks.matching.priors import (
    BatchNormStatistics,
    Belief,
    GroupConsistency,
    Multiplied,
    Prior,
    Statistics,
)
from invertigo.attacks.matching.soft_labels import soft_form
from invertigo.attacks.matching.space import SOFT_LABELS, Space
from invertigo.attacks.targets import Targets
from invertigo.federation.functional import Simulation, functional_update
from invertigo.federation.norms import ComposedNorms
from invertigo.types import Observation

LARGE = 1_000_000
"""Networks with more parameters than this run one restart at a time: batching them saves no work and costs memory."""


@dataclass(frozen=True)
class Problem:
    """Find `x` such that the simulated update g(x) equals the observed one, up to priors.

    `labels` are integer class labels (batch,) shared by all restarts, or None when the space holds soft labels.
    `compile` runs the whole step through `torch.compile`, which takes a minute or more to begin with and pays on
    long runs of small networks and on GPUs. Use a problem inside `simulating(model, mode)`.
    """

    observation: Observation
    space: Space
    objective: Objective
    priors: Sequence[Prior] = ()
    labels: Tensor | None = None
    weights: list[Tensor] | None = None
    num_examples: int = 1
    compile: bool = False
    chart: Chart | None = None
    targets: Targets | None = None
    """The form of soft labels, where the space holds any."""

    @cached_property
    def observed(self) -> list[Tensor]:
        """The observed update, layer by layer, each (1, *layer)."""
        return [self.observation.update.tensors[name][None] for name in self.observation.parameters]

    @property
    def _blind(self) -> bool:
        """Nothing has to be simulated: the matching term is left out and no prior asks for statistics."""
        return isinstance(self.objective, Nothing) and not self._needs_statistics

    @cached_property
    def large(self) -> bool:
        """More parameters than `LARGE`: the work itself outweighs handing it out."""
        return sum(p.numel() for p in self.observation.parameters.values()) > LARGE

    @property
    def noise(self) -> list[float]:
        """Standard deviation of the noise known to be on each layer; zeros where nothing is known."""
        view = self.observation.knowledge.view
        known = (view.noise_std if view else None) or {}
        return [float(known.get(name, 0.0)) for name in self.observation.parameters]

    @property
    def noise_share(self) -> float:
        """Share of the observed update's (weighted) square that is known to be noise."""
        return noise_share(self.observed, self.noise, self.weights) if any(self.noise) else 0.0

    @property
    def visible_entries(self) -> int:
        """Number of entries that are compared."""
        if self.weights is None:
            return sum(p.numel() for p in self.observed)
        return sum(int((w != 0).expand(o.shape).sum()) for w, o in zip(self.weights, self.observed))

    @cached_property
    def target(self) -> Tensor:
        """The observed update as one row, (1, entry), each entry times the root of its weight."""
        return self._row(self.observed)

    def row(self, flat: Tensor) -> Tensor:
        """The simulated updates as rows, (restart, entry), to be compared with `target`."""
        return self._row(self.simulate(flat)[0])

    def _row(self, layers: Sequence[Tensor]) -> Tensor:
        scaled = layers if self.weights is None else [layer * w.sqrt() for layer, w in zip(layers, self.weights)]
        return torch.cat([layer.flatten(1) for layer in scaled], dim=1)

    @cached_property
    def _needs_statistics(self) -> bool:
        return self.observation.knowledge.batch_statistics is not None and any(
            isinstance(prior, BatchNormStatistics) for prior in self.priors
        )

    @cached_property
    def _single(self) -> Callable[[Mapping[str, Tensor]], Simulation]:
        """g for one restart at a time, with an autograd tape: cheapest for large networks."""
        return self._simulator(transformable=False)

    @cached_property
    def _batched(self) -> Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], Statistics]]:
        """g for all restarts at once through `torch.func.vmap`."""
        simulate = self._simulator(transformable=True)

        def one(fields: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Statistics]:
            result = simulate(fields)
            return result.update, result.statistics

        target = self.observation.task.domain.target
        order = list(self.fields(self.observed[0].new_zeros(1, self.space.size)))
        # In the order of the arguments: vmap pairs the entries of two dictionaries by position.
        dims = {name: None if name == target and self.labels is not None else 0 for name in order}
        return torch.func.vmap(one, in_dims=(dims,), randomness="different")

    def _simulator(self, *, transformable: bool) -> Callable[[Mapping[str, Tensor]], Simulation]:
        o, view = self.observation, self.observation.knowledge.view
        simulate = functional_update(
            o.task, o.parameters, o.buffers, o.local, self.num_examples,
            transformable=transformable, statistics=self._needs_statistics,
        )  # fmt: skip
        if view is None or view.transform is None:
            return simulate
        transform = view.transform
        return lambda fields: simulate(transform(fields))

    def _sent(self, update: Mapping[str, Tensor]) -> list[Tensor]:
        """What the client would have sent of these updates (restart, *layer), as far as the adversary knows."""
        view = self.observation.knowledge.view
        if view is not None and view.surrogate is not None:
            update = view.surrogate(update)
        return [update[name] for name in self.observation.parameters]

    def fields(self, flat: Tensor) -> dict[str, Tensor]:
        """Named batch tensors (restart, batch, ...) of flat candidates; known labels have no restart dimension."""
        named = self.space.unpack(flat)
        target = self.observation.task.domain.target
        if SOFT_LABELS in named:
            targets = self.targets or soft_form(self.observation)
            named[target] = targets.soft(named.pop(SOFT_LABELS))
        if self.chart is not None:
            named = dict(self.chart.fields(named))
        if self.labels is not None:
            named[target] = self.labels
        return named

    def simulate(self, flat: Tensor) -> tuple[list[Tensor], Statistics]:
        """Simulated updates (restart, *layer), differentiable in `flat` (restart, unknown)."""
        fields = self.fields(flat)
        if flat.shape[0] > 1:
            with ComposedNorms():
                update, statistics = self._batched(fields)
            return self._sent(update), statistics
        result = self._single({k: v if v is self.labels else v[0] for k, v in fields.items()})
        statistics = {k: (mean[None], variance[None]) for k, (mean, variance) in result.statistics.items()}
        return self._sent({name: tensor[None] for name, tensor in result.update.items()}), statistics

    def penalty(self, flat: Tensor, statistics: Statistics) -> Tensor | None:
        """(restart,) sum of the priors, or None without priors."""
        if not self.priors:
            return None
        images = self.space.unpack(flat)[self.observation.task.domain.inputs]
        belief = Belief(images, statistics, self.observation.knowledge.batch_statistics)
        return torch.stack([prior(belief) for prior in self.priors]).sum(0)

    def value_and_gradient(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Objective plus priors (restart,), and the derivative (restart, unknown). One backward pass, to data only."""
        if self._one_at_a_time(flat):
            return self._row_by_row(flat)
        if self.compile:
            return self._compiled(flat.detach())
        flat = flat.detach().requires_grad_()
        if self._blind:
            penalty = self.penalty(flat, {})
            return (
                (flat.new_zeros(len(flat)), torch.zeros_like(flat))
                if penalty is None
                else _with_gradient(penalty, flat)
            )
        with LeanConvolutions() if self.large else nullcontext():
            predicted, statistics = self.simulate(flat)
        with torch.no_grad():
            value, cotangent = self.objective.value_and_cotangent(predicted, self.observed, self.weights)
        outputs, cotangents = _differentiable(predicted, cotangent)
        penalty = self.penalty(flat, statistics)
        if penalty is not None:
            outputs, cotangents = [*outputs, penalty], [*cotangents, torch.ones_like(penalty)]
            value = value + penalty.detach()
        (gradient,) = torch.autograd.grad(outputs, [flat], cotangents, materialize_grads=True)
        return value, gradient

    def value(self, flat: Tensor) -> Tensor:
        """Objective plus priors (restart,) without the derivative."""
        if self._one_at_a_time(flat):
            return self._row_by_row(flat)[0]
        predicted, statistics = self.simulate(flat.detach())
        with torch.no_grad():
            value, _ = self.objective.value_and_cotangent(predicted, self.observed, self.weights)
            penalty = self.penalty(flat, statistics)
        return value.detach() if penalty is None else value.detach() + penalty

    def _one_at_a_time(self, flat: Tensor) -> bool:
        return flat.shape[0] > 1 and (self.large or not self._vmappable)

    @cached_property
    def _vmappable(self) -> bool:
        """Whether the user's model can be batched over restarts: no branches on data, no unsupported operation."""
        try:
            self.simulate(self.observed[0].new_zeros(2, self.space.size))
        except RuntimeError:
            return False
        return True

    @cached_property
    def _rows(self) -> dict[int, Problem]:
        return {}

    def _alone(self, restart: int) -> Problem:
        """This problem for one restart, without the priors that couple restarts."""
        if restart not in self._rows:
            own = (p.of(restart) if isinstance(p, Multiplied) else p for p in self.priors)
            self._rows[restart] = replace(self, priors=tuple(p for p in own if not isinstance(p, GroupConsistency)))
        return self._rows[restart]

    def _row_by_row(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        parts = [self._alone(number).value_and_gradient(row[None]) for number, row in enumerate(flat)]
        value, gradient = torch.cat([v for v, _ in parts]), torch.cat([g for _, g in parts])
        flat = flat.detach().requires_grad_()
        coupled = replace(self, priors=tuple(p for p in self.priors if isinstance(p, GroupConsistency)))
        penalty = coupled.penalty(flat, {})
        if penalty is None:
            return value, gradient
        together, slope = _with_gradient(penalty, flat)
        return value + together, gradient + slope

    @cached_property
    def _compiled(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """The step as nested function transforms, the only form of a double backward that `torch.compile` accepts."""

        def predict(flat: Tensor) -> tuple[list[Tensor], Statistics]:
            with ComposedNorms():
                update, statistics = self._batched(self.fields(flat))
            return self._sent(update), statistics

        def step(flat: Tensor) -> tuple[Tensor, Tensor]:
            predicted, pull, statistics = torch.func.vjp(predict, flat, has_aux=True)  # pyright: ignore
            value, cotangent = self.objective.value_and_cotangent(predicted, self.observed, self.weights)
            (gradient,) = pull(cotangent)
            if not self.priors:
                return value, gradient

            def total(flat: Tensor) -> tuple[Tensor, Tensor]:
                penalty = self.penalty(flat, statistics)
                assert penalty is not None
                return penalty.sum(), penalty

            slope, penalty = torch.func.grad(total, has_aux=True)(flat)
            return value + penalty, gradient + slope

        compiled: dict[torch.Size, Callable] = {}

        def run(flat: Tensor) -> tuple[Tensor, Tensor]:
            # Traced to elementary operations first: the compiler itself stumbles over function modes and transforms.
            if flat.shape not in compiled:
                compiled[flat.shape] = torch.compile(make_fx(step)(flat), fullgraph=True)
            return compiled[flat.shape](flat)

        return run


def _with_gradient(penalty: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
    return penalty.detach(), torch.autograd.grad(penalty.sum(), flat)[0]


def _differentiable(outputs: list[Tensor], cotangents: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Only the outputs that depend on the candidate: a layer may not (an unused or constant-gradient one)."""
    pairs = [(o, c) for o, c in zip(outputs, cotangents) if o.requires_grad]
    return [o for o, _ in pairs], [c for _, c in pairs]
