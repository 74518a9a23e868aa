"""Read the images off a first linear layer: its weight gradient is its bias gradient times the input."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.dry_run import dry_run
from invertigo.attacks.exact.alone import Alone, candidate_targets, output_count
from invertigo.attacks.exact.first_layer import FirstLinear, find_first_linear
from invertigo.attacks.exact.layer_gradients import is_enough, is_whole, layer_gradients, norm_of, peeled, separable
from invertigo.attacks.exact.peeling import Layer, clusters, combine
from invertigo.attacks.exact.separated import Examples, Situation, seconds_from_now, separate
from invertigo.attacks.hidden_pixels import few_levels
from invertigo.attacks.labels import infer_labels
from invertigo.attacks.registry import register
from invertigo.types import (
    Observation,
    Paper,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    check_requirements,
)

AGREEING = 3
"""Neurons that must agree on an example which cannot be simulated on its own."""
AGREEMENT = 0.02
"""Relative misfit of one example's gradients up to which they may have been rounded (to bfloat16 at the coarsest)."""


@register
@dataclass(frozen=True, kw_only=True)
class LinearLayer:
    r"""Images from the gradients of a first linear layer with bias, exactly: $g_{W,i} = \sum_j \delta_{ji} x_j$,
    $g_{b,i} = \sum_j \delta_{ji}$.

    One example: every neuron's ratio $g_{W,i} / g_{b,i}$ is the image; the least-squares combination of all neurons is
    returned, also after several local steps on that example. Several examples: neurons that a single one activates
    (ReLU) show it as ratios that agree, and each leaves half of the neurons silent, which tells its share of the
    gradients from any mixture (`separation`); where that is not enough, each is proven by simulating it alone, and
    taken off the gradients, which uncovers others (`peeling`).
    As many images are returned as were proven, perhaps fewer than the batch holds; then the record says `ambiguous`,
    for the rest of the batch is unknown. Where nothing can be proven the attack refuses: with sigmoid or GELU every
    neuron mixes all examples.

    Where examples cannot be simulated alone (dropout, BatchNorm in training mode, several local steps), an image is
    returned when at least three neurons agree on it.

    Args:
        slack: how far pixels may leave their range, as a fraction of it, before a ratio is taken for a mixture.
        seconds: after which the search for more examples ends.

    Source: Phong et al. (2017) (ratio); Boenisch et al. (2021) (neurons that one example activates); Shariati and
    Alambardar Meybodi (2026) (peeling with a certificate by simulation, as a decoder of LT codes; found independently).
    The search by rank and silence (`separation`), which needs neither loss nor labels nor a neuron that shows one
    example alone, is ours.
    """

    name: ClassVar[str] = "linear_layer"
    paper: ClassVar[Paper] = Paper(
        "phong2017privacy",
        "Privacy-Preserving Deep Learning: Revisited and Enhanced",
        "Phong, Le Trieu and Aono, Yoshinori and Hayashi, Takuya and Wang, Lihua and Moriai, Shiho",
        2017,
        "International Conference on Applications and Techniques in Information Security",
    )
    papers: ClassVar[tuple[Paper, ...]] = (
        paper,
        Paper(
            "boenisch2021curious",
            "When the Curious Abandon Honesty: Federated Learning Is Not Private",
            "Boenisch, Franziska and Dziedzic, Adam and Schuster, Roei and Shahin Shamsabadi, Ali and Shumailov, Ilia "
            "and Papernot, Nicolas",
            2021,
            "arXiv preprint",
            "2112.02918",
        ),
        Paper(
            "shariati2026cascading",
            "Cascading Gradient Inversion via LT-Code Inspired Peeling in Federated Learning",
            "Shariati and Alambardar Meybodi",
            2026,
            "arXiv preprint",
            "2609.09659",
        ),
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset()
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    slack: float = 1e-3
    seconds: float = 60.0

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`. Raises: RequirementError when the layer gives nothing away, with the reason."""
        started = time.perf_counter()
        check_requirements(self, observation)
        task, held = observation.task, (observation.buffers, observation.parameters)
        first = find_first_linear(
            task.model, task.domain, mode=observation.local.mode, run=lambda probes: dry_run(task, probes, *held),
            convolutions=True,
        )  # fmt: skip
        layer = layer_gradients(observation, first)
        return self.read(observation, first, layer, started)

    def read(
        self, observation: Observation, first: FirstLinear, layer: Layer, started: float, *, singles: bool = False
    ) -> Reconstruction:
        """Images out of the gradients of a linear layer that is known to read them (`singles`: see `peel`)."""
        whole = combine(layer.weight, layer.bias)
        residual = float((layer.weight - layer.bias[:, None] * whole).norm() / layer.weight.norm())
        if observation.num_examples == 1 or (
            observation.num_examples is None
            and residual < (4 if layer.coarse else 1e4) * layer.eps
            and bool(self._plausible(observation, first, whole[None], slack=max(self.slack, 4 * layer.eps))[0])
        ):
            return self._one(observation, first, whole, residual, started, rounded=few_levels(layer.weight))
        return self._several(observation, first, layer, started, singles)

    def _one(
        self,
        observation: Observation,
        first: FirstLinear,
        inputs: Tensor,
        residual: float,
        started: float,
        rounded: bool,
    ) -> Reconstruction:
        if not bool(self._plausible(observation, first, inputs[None], slack=0.5)[0]):
            raise RequirementError(
                f"The ratio of the gradients of '{first.name}' is no image (its pixels leave their range), so the "
                "update does not come from one example as this layer saw it, or something cancelled its bias gradient."
            )
        known = observation.knowledge.labels
        labels, inferred = known, False
        if labels is None:
            labels, inferred = _labels(observation), True
        notes = [f"The ratio of all {first.neurons} neurons of '{first.name}' agrees to {residual:.1e}."]
        if rounded:
            notes.append("The gradient was rounded to few magnitudes, whose ratios agree whatever the image was.")
        elif residual > AGREEMENT:
            notes.append(
                "One example alone would agree to rounding, so this is no proof: something was added or changed."
            )
        found = self._result(observation, first, inputs[None], labels, residual, started, tuple(notes), inferred)
        return replace(found, stopped="converged") if rounded or residual > AGREEMENT else found

    def _several(
        self, observation: Observation, first: FirstLinear, layer: Layer, started: float, singles: bool
    ) -> Reconstruction:
        total = norm_of(layer)
        size, notes = observation.num_examples, []
        if size is None:
            size = len(infer_labels(observation).labels)
            notes.append(f"The batch size was not known and estimated as {size}.")
        # Rounded ratios may leave the range a little.
        slack = max(self.slack, 4 * layer.eps)
        plausible = partial(self._plausible, observation, first, slack=slack)
        simulable = separable(observation) and candidate_targets(observation) is not None
        separated = self._separated(observation, first, layer, plausible, simulable)
        if separated is not None and is_enough(len(separated.inputs), min(size, separated.rank)):
            return self._told(observation, first, separated, size, notes, started)
        if simulable:
            found, rest = peeled(observation, first, layer, size, plausible, singles)
            if scaled := not found:
                found, rest = peeled(observation, first, layer, size, plausible, False, scaled)
            rows = [f.inputs for f in found for _ in range(f.times)]
            labels = [f.label for f in found for _ in range(f.times)]  # numbers of the candidates
            objective = norm_of(rest) / total
            notes.append(f"Each image was proven by simulating it alone; {objective:.1e} of the gradient is left over.")
            notes += ["Gradients were scaled, as by clipping: each image was proven up to a factor."] * scaled
        else:
            rows, labels = self._agreeing(observation, layer, plausible, size, separated), None
            objective = 1.0 - len(rows) / size
            notes.append(f"Each image is shown by at least {AGREEING} neurons; none could be simulated alone.")
        if separated is not None and len(separated.inputs) > len(rows):
            return self._told(observation, first, separated, size, notes, started)
        if not rows:
            raise RequirementError(self._refusal(first, layer, plausible, size))
        if len(rows) < size:
            notes.insert(0, f"{len(rows)} of {size} examples were rebuilt; the others share all their neurons.")
        choices = candidate_targets(observation)
        target = None if labels is None or choices is None else choices[labels]
        return self._result(observation, first, torch.stack(rows), target, objective, started, tuple(notes), True)

    def _separated(
        self,
        observation: Observation,
        first: FirstLinear,
        layer: Layer,
        plausible: Callable[[Tensor], Tensor],
        simulable: bool,
    ) -> Examples | None:
        """Examples told apart by rank and silence. `plausible` images only; None where neurons are never silent."""
        targets, size = candidate_targets(observation), observation.num_examples
        alone = Alone.of(observation, first, targets, size) if simulable and size and targets is not None else None
        given = Situation(observation, first, layer, size, plausible, targets, alone)
        return separate(given, seconds_from_now(self.seconds))

    def _told(
        self,
        observation: Observation,
        first: FirstLinear,
        examples: Examples,
        size: int,
        notes: list[str],
        started: float,
    ) -> Reconstruction:
        notes = [*notes, *examples.notes]
        if len(examples.inputs) < size:
            missing = size - len(examples.inputs)
            notes.insert(
                0,
                f"{len(examples.inputs)} of {size} examples were rebuilt; the other {missing} share all their neurons, "
                "are not independent of these, or could not be proven.",
            )
        choices = candidate_targets(observation)
        target = None if examples.numbers is None or choices is None else choices[examples.numbers]
        return self._result(observation, first, examples.inputs, target, examples.rest, started, tuple(notes), True)

    def _refusal(self, first: FirstLinear, layer: Layer, plausible: Callable[[Tensor], Tensor], size: int) -> str:
        """Why nothing was rebuilt, with counts: of neurons whose ratio is an image, and of those that agree on one."""
        _, ratios, _ = layer.ratios()
        inside, groups = int(plausible(ratios).sum()), clusters(layer, plausible)
        agreeing = sum(len(group) > 1 for group in groups)
        return (
            f"Of {len(layer.bias)} neurons of '{first.name}', {inside} show an image within its range and {agreeing} "
            f"images are shown by more than one, but none could be proven to be a single one of the {size} examples: "
            "as far as can be told, each mixes several. That is so with sigmoid or GELU, and with ReLU when the "
            "examples activate the same neurons."
        )

    def _agreeing(
        self,
        observation: Observation,
        layer: Layer,
        plausible: Callable[[Tensor], Tensor],
        size: int,
        separated: Examples | None,
    ) -> list[Tensor]:
        outputs = output_count(observation)
        if outputs <= 2 and separated is not None:
            return []
        if outputs <= 2:
            raise RequirementError(
                f"With {outputs} outputs, neurons that mix the same examples agree as well, and here no example "
                "can be simulated alone (dropout, BatchNorm in training mode or several local steps) to tell."
            )
        groups = [g for g in clusters(layer, plausible) if len(g) >= AGREEING][:size]
        return [combine(layer.weight[g], layer.bias[g]) for g in groups]

    def _plausible(
        self, observation: Observation, first: FirstLinear, inputs: Tensor, slack: float | None = None
    ) -> Tensor:
        """(row,) whether layer inputs (row, pixel) are images within their range."""
        domain = observation.task.domain
        low, high = (bound.to(inputs) for bound in domain.bounds(domain.inputs))
        margin = (self.slack if slack is None else slack) * (high - low)
        images = first.images(inputs)
        return ((images >= low - margin) & (images <= high + margin)).flatten(1).all(1)

    def _result(
        self, observation: Observation, first: FirstLinear, inputs: Tensor, labels: Tensor | None, objective: float,
        started: float, notes: tuple[str, ...], inferred: bool,
    ) -> Reconstruction:  # fmt: skip
        domain = observation.task.domain
        like = observation.update.tensors[first.weight_name]
        fields = {domain.inputs: first.images(inputs).to(like.dtype)}
        if labels is not None:
            fields[domain.target] = labels
        return Reconstruction(
            fields=fields,
            attack=self.name,
            objective=objective,
            stopped="exact" if is_whole(observation, len(inputs), objective) else "ambiguous",
            seconds=time.perf_counter() - started,
            labels_inferred=inferred and labels is not None,
            notes=notes,
        )


def _labels(observation: Observation) -> Tensor | None:
    try:
        return infer_labels(observation).labels
    except RequirementError:
        return None
