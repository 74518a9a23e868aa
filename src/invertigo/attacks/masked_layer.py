"""Rebuild what a first linear layer saw from the entries of its gradient that a defense left, or that noise covers."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.completion import Completed, low_rank, rank_one
from invertigo.attacks.dry_run import dry_run
from invertigo.attacks.exact.first_layer import FirstLinear, find_first_linear
from invertigo.attacks.exact.layer_gradients import layer_gradients
from invertigo.attacks.exact.linear_layer import LinearLayer
from invertigo.attacks.exact.peeling import Layer
from invertigo.attacks.hidden_pixels import bound_of_hidden, few_levels, filled, smoothed
from invertigo.attacks.labels import infer_labels
from invertigo.attacks.registry import register
from invertigo.types import (
    INVERTIGO,
    Observation,
    Paper,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    check_requirements,
)

ROUNDED = 1e4
"""Roundings up to which a gradient without holes is that of one example, and nothing was added."""
FEW = 16
"""Entries of a row that weigh as much as all rows together in what its noise is taken to be."""
LARGEST = 16
"""Examples of which a masked gradient is completed."""


@register
@dataclass(frozen=True, kw_only=True)
class LowRankCompletion:
    r"""Images from the part of a first linear layer's gradient that a mask left or noise covers, without labels.

    $[G_W\,|\,g_b]=\sum_b \delta_b\,[x_b\,|\,1]$ has rank B at most. Entries that are zero count as left out. Of one
    example, $\delta_i z_j$ follows along the entries that were sent, exactly where these are exact; through noise, the
    nearest matrix of rank one is the most likely one, and rows with more noise than others weigh less. The bias tells
    the scale. Pixels of which nothing was sent are filled in smoothly, within what being left out says of them; noise
    that is left is smoothed as far as pays by Stein's estimate of the risk. Of several examples the matrix is completed
    to rank B and read by `linear_layer`.

    What it returns is an estimate, and never taken for proven.

    Source: ours; alternating least squares for matrix completion is textbook.
    """

    name: ClassVar[str] = "low_rank_completion"
    paper: ClassVar[Paper] = INVERTIGO
    requires: ClassVar[frozenset[Requirement]] = frozenset()
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    rounds: int = 300
    seconds: float = 30.0

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`. Raises: RequirementError where there is nothing to complete, with the reason."""
        started = time.perf_counter()
        check_requirements(self, observation)
        task, held = observation.task, (observation.buffers, observation.parameters)
        first = find_first_linear(
            task.model, task.domain, mode=observation.local.mode, run=lambda probes: dry_run(task, probes, *held)
        )
        layer = layer_gradients(observation, first)
        matrix = torch.cat([layer.weight, layer.bias[:, None]], dim=1)
        if few_levels(layer.weight):
            raise RequirementError(
                f"The gradient of '{first.name}' was rounded to few magnitudes: its zeros are values, not entries that "
                "were left out, and what rounding changes is no noise. `linear_layer` reads it, if anything does."
            )
        weight = self._weight(observation, first, matrix)
        if (observation.num_examples or 1) == 1:
            return self._one(observation, first, matrix, weight, layer.eps, started)
        return self._several(observation, first, matrix, weight, layer.eps, generator, started)

    def _weight(self, observation: Observation, first: FirstLinear, matrix: Tensor) -> Tensor:
        """(neuron, pixel + 1) one over the variance of each entry, up to a factor; 0 where it was left out."""
        view, parts = observation.knowledge.view, (first.weight_name, first.bias_name)
        seen = (matrix != 0).to(matrix)
        if view is not None and view.visible:
            shown = [view.visible.get(str(name)) for name in parts]
            columns = [matrix.new_ones(0) if s is None else s.to(matrix).reshape(len(matrix), -1) for s in shown]
            whole = (slice(None, -1), slice(-1, None))
            for column, part in zip(columns, whole):
                if column.numel():
                    seen[:, part] = seen[:, part] * (column > 0)
        if not bool(seen.any()):
            raise RequirementError(f"Nothing of the gradient of '{first.name}' was sent.")
        noise = (view.noise_std or {}) if view is not None else {}
        stds = [noise.get(str(name), 0.0) for name in parts]
        if min(stds) > 0:
            seen[:, -1] *= (stds[0] / stds[1]) ** 2
        return seen

    def _one(
        self, observation: Observation, first: FirstLinear, matrix: Tensor, weight: Tensor, eps: float, started: float
    ) -> Reconstruction:
        seen = weight > 0
        holes = int((matrix.any(1)[:, None] & matrix.any(0)[None] & ~seen).sum())
        fit = rank_one(matrix, weight, self.rounds)
        if not holes and fit.misfit < ROUNDED * eps:
            raise RequirementError(
                f"No entry of the gradient of '{first.name}' is left out and nothing was added to it (it is of rank "
                f"one to {fit.misfit:.1e}): `linear_layer` reads it."
            )
        fit, weight = self._reweighted(matrix, weight, fit, eps)
        scale = float(fit.right[-1, 0])
        if scale == 0:
            raise RequirementError(
                f"No entry of the bias gradient of '{first.name}' is connected to the weights' that were sent, so the "
                "image is known up to an unknown factor only."
            )
        fit = replace(fit, left=fit.left * scale, right=fit.right / scale)
        image, notes = self._image(observation, first, matrix, weight, fit)
        told = float((fit.right[:-1, 0] != 0).double().mean())
        notes = [
            f"{float(seen.double().mean()):.1%} of the entries were sent; {told:.1%} of the pixels follow from them, "
            f"and {fit.misfit:.1e} of what was sent is unexplained.",
            *notes,
        ]
        return self._result(observation, image, fit.misfit, notes, started)

    def _reweighted(self, matrix: Tensor, weight: Tensor, fit: Completed, eps: float) -> tuple[Completed, Tensor]:
        """Once more, with each row's own noise: defenses may disturb some rows only."""
        if fit.misfit < ROUNDED * eps:
            return fit, weight
        seen = (weight > 0).to(matrix)
        for _ in range(2):
            count = seen.sum(1).clamp_min(1)
            square = (seen * (matrix - fit.matrix).square()).sum(1)
            common = square.sum() / count.sum()
            variance = (square + FEW * common) / (count + FEW)  # a row of few entries tells little of its noise
            floor = 1e-2 * common
            weight = seen * (1 / (variance + floor))[:, None]
            fit = rank_one(matrix, weight, self.rounds)
        return fit, weight

    def _image(
        self, observation: Observation, first: FirstLinear, matrix: Tensor, weight: Tensor, fit: Completed
    ) -> tuple[Tensor, list[str]]:
        seen, right = weight > 0, fit.right[:-1, 0]
        domain, notes = observation.task.domain, []
        low, high = (bound.to(matrix).expand(1, *first.shape) for bound in domain.bounds(domain.inputs))
        told = _pixels(first, (right != 0).to(matrix)).bool()
        image = first.images(right[None])
        variance = _pixels(first, _variance(matrix, weight, fit) / first.scale.to(matrix).square())
        if float(variance[told].mean() if bool(told.any()) else 0.0) > (1e-3 * float((high - low).max())) ** 2:
            clean = torch.where(told, image, (low + high) / 2).clamp(low, high) if not bool(told.all()) else image
            smooth, share = smoothed(clean, variance * told)
            image = torch.where(told, smooth, image)
            notes.append(f"Noise on the pixels was smoothed to an estimated {share:.0%} of its squared size.")
        bound = bound_of_hidden(matrix[:, :-1], seen[:, :-1], replace(fit, right=fit.right[:-1]))
        if bound is not None:
            ends = [first.images(torch.full_like(right, side * bound)[None]) for side in (-1, 1)]
            least, most = torch.minimum(*ends).maximum(low), torch.maximum(*ends).minimum(high)
            quarter = (most - least).clamp_min(0) / 4  # neighbours are told because they are larger
            least, most = least + quarter, most - quarter
        else:
            least, most = low, high
        if image.ndim == 4:
            image = filled(image, told, least, most.maximum(least))
        return image.clamp(low, high), notes

    def _several(
        self, observation: Observation, first: FirstLinear, matrix: Tensor, weight: Tensor, eps: float,
        generator: torch.Generator, started: float,
    ) -> Reconstruction:  # fmt: skip
        size = observation.num_examples or 1
        holes = matrix.any(1)[:, None] & matrix.any(0)[None] & (weight == 0)
        if not bool(holes.any()) and observation.knowledge.view is None:
            raise RequirementError(
                f"No entry of the gradient of '{first.name}' is left out, so there is nothing to complete: "
                "`linear_layer` reads it."
            )
        if size > LARGEST:
            raise RequirementError(f"Of {size} examples nothing is completed, only of {LARGEST} at most.")
        deadline = time.perf_counter() + self.seconds / 2
        fit = low_rank(matrix, weight, size, generator, self.rounds, late=lambda: time.perf_counter() > deadline)
        full = fit.matrix
        layer = Layer(full[:, :-1], full[:, -1], max(eps, fit.misfit))
        found = LinearLayer(seconds=self.seconds / 2).read(observation, first, layer, started)
        note = f"The gradient was completed to rank {size}; {fit.misfit:.1e} of what was sent is unexplained."
        return replace(found, attack=self.name, stopped="converged", notes=(note, *found.notes), objective=fit.misfit)

    def _result(
        self, observation: Observation, image: Tensor, misfit: float, notes: list[str], started: float
    ) -> Reconstruction:
        domain = observation.task.domain
        like = next(iter(observation.parameters.values()))
        fields, known = {domain.inputs: image.to(like.dtype)}, observation.knowledge.labels
        labels = _labels(observation) if known is None else known
        if labels is not None:
            fields[domain.target] = labels
        return Reconstruction(
            fields=fields, attack=self.name, objective=misfit, stopped="converged",
            seconds=time.perf_counter() - started, labels_inferred=known is None and labels is not None,
            notes=tuple(notes),
        )  # fmt: skip


def _variance(matrix: Tensor, weight: Tensor, fit: Completed) -> Tensor:
    r"""(pixel,) variance that noise leaves on each layer input, $s/\sum_i w_{ij}u_i^2$."""
    spare = max(1, int((weight > 0).sum()) - len(matrix) - matrix.shape[1])
    scale = float((weight * (matrix - fit.matrix).square()).sum()) / spare
    power = (weight.T @ fit.left[:, 0].square())[:-1]
    return torch.where(power > 0, scale / power.clamp_min(1e-300), 0.0)


def _pixels(first: FirstLinear, values: Tensor) -> Tensor:
    """(1, *shape) of what is known of each layer input (feature,)."""
    flat = values if first.feature is None else values[first.feature]
    return flat.reshape(1, *first.shape)


def _labels(observation: Observation) -> Tensor | None:
    try:
        return infer_labels(observation).labels
    except RequirementError:
        return None
