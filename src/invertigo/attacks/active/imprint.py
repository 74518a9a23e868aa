"""Robbing the Fed: measure one number of every image, and put each into a bin of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from invertigo.attacks.active.bins import EMPTY, bin_rows, loudness, normal_edges, reading_columns, separate
from invertigo.attacks.active.gate import Gate, find_gate
from invertigo.attacks.active.passage import find_passage
from invertigo.attacks.active.reading import seen_images
from invertigo.attacks.exact.first_layer import FirstLinear
from invertigo.attacks.exact.layer_gradients import layer_gradients
from invertigo.attacks.registry import register
from invertigo.types import (
    Batch,
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


@register
@dataclass(frozen=True, kw_only=True)
class Imprint:
    r"""Every row of a hidden layer measures the same $h \cdot x$, and its bias is the edge of a bin.

    Row $k$ fires for images with $h \cdot x > q_k$. The next layer treats all rows alike, so the gradients of
    neighbouring rows differ by the images of one bin, and their ratio to the bias gradients' difference is that image
    when it is alone: $x = (g_{W,k} - g_{W,k+1}) / (g_{b,k} - g_{b,k+1})$. With $K$ equally likely bins, the expected
    share of images that are alone among $n$ is $(1 - 1/K)^{n-1}$.

    The bins are quantiles of $h \cdot x$ over public data; without any, of a normal law of mid-grey noise. Where the
    activation is shut by large inputs too (hard tanh, ReLU6), row $k$ is scaled to fire for bin $k$ alone and its own
    ratio is the image: the sparse form, which several local steps do not blur, since steps on other images leave the
    row alone. Clients that are summed securely count as one large batch.

    Args:
        measure: `mean` brightness, or `random`, a standardised normal direction.
        gain: factor on the measuring rows.
        one_shot: two bins around the quantile at which one image of `num_examples x clients` is expected beyond.
        slack: how far pixels may leave their range, as a fraction of it, before a ratio counts as a mixture.
        permute: put the rows in random order. noise: relative size of normal noise on each measuring row. Both hide
            the structure from a client who looks for it; noise makes bins overlap.
        loud: factor on the weights that read single bins. None makes up for learning rates below 0.1 after local steps,
            at the price of a loss that a client notices.

    Source: Fowl et al. 2022; permutation and noise are ours. The paper adds a layer to the model; here an existing
    hidden layer is used, since clients load parameters, not code.
    """

    name: ClassVar[str] = "imprint"
    paper: ClassVar[Paper] = Paper(
        "fowl2022robbing",
        "Robbing the Fed: Directly Obtaining Private Data in Federated Learning with Modified Models",
        "Fowl, Liam and Geiping, Jonas and Czaja, Wojtek and Goldblum, Micah and Goldstein, Tom",
        2022,
        "International Conference on Learning Representations",
        "2110.13057",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.CRAFTED_MODEL})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    measure: Literal["mean", "random"] = "random"
    gain: float = 1.0
    one_shot: bool = False
    slack: float = 0.05
    permute: bool = False
    noise: float = 0.0
    loud: float | None = None

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
        assert passage.consumer is not None
        gate = find_gate(task, passage.layer.name, passage.consumer)
        layer, parameters = passage.layer, dict(task.model.named_parameters())
        weight, bias, consumer = (parameters[n] for n in (layer.weight_name, passage.bias, passage.consumer))
        direction = self._direction(layer.arrives.cpu(), generator)
        centre, deviation = self._law(direction, layer, task, public)
        edges = self._edges(len(bias), num_examples * clients, gate) * deviation + centre
        rows, shifts = bin_rows(direction, edges, gate, self.gain)
        rows = self._noisy(rows, generator)
        columns = reading_columns(len(consumer), len(bias), gate, deviation * self.gain, generator, self._loud(local))
        order = torch.randperm(len(bias), generator=generator) if self.permute else torch.arange(len(bias))
        state = {
            layer.weight_name: rows[order].to(weight),
            passage.bias: shifts[order].to(bias),
            passage.consumer: columns[:, order].to(consumer),
        }
        return Plant(self.name, {**passage.state, **state})

    def _loud(self, local: LocalTraining) -> float:
        return loudness(local) if self.loud is None else self.loud

    def _noisy(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        if self.noise == 0.0:
            return rows
        drawn = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
        return rows + self.noise * rows.norm(dim=1, keepdim=True) * drawn / rows.shape[1] ** 0.5

    def _direction(self, arrives: Tensor, generator: torch.Generator) -> Tensor:
        drawn = torch.randn(len(arrives), generator=generator, dtype=torch.float64)
        direction = (torch.ones_like(drawn) if self.measure == "mean" else drawn) * arrives.cpu()
        return direction / (direction.abs().sum() if self.measure == "mean" else direction.norm())

    def _law(self, direction: Tensor, layer: FirstLinear, task: Task, public: Batch | None) -> tuple[float, float]:
        """Mean and deviation of the measurement: over public data, else of noise around mid-grey."""
        low, high = (float(bound.mean()) for bound in task.domain.bounds(task.domain.inputs))
        if public is not None:
            seen = layer.inputs(public[task.domain.inputs].double()).cpu() @ direction
            return seen.mean().item(), max(seen.std().item(), 1e-6)
        middle = (low + high) / 2 + float(layer.shift[0])
        spread = 0.25 if self.measure == "random" else 0.15
        return middle * direction.sum().item(), spread * (high - low)

    def _edges(self, count: int, crowd: int, gate: Gate) -> Tensor:
        if not self.one_shot:
            return normal_edges(count, gate)
        ends = torch.special.ndtri(torch.tensor([max(1 - 2 / crowd, 1e-6), 1 - 1 / crowd], dtype=torch.float64))
        if gate.closes_above:
            return torch.linspace(ends[0].item(), ends[1].item(), count + 1, dtype=torch.float64)
        return ends.repeat_interleave(torch.tensor([count // 2, count - count // 2]))

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        started = time.perf_counter()
        check_requirements(self, observation)
        passage = find_passage(observation.task, observation.local.mode)
        assert passage.consumer is not None
        gate = find_gate(observation.task, passage.layer.name, passage.consumer)
        rows = layer_gradients(observation, passage.layer)
        weight, share = separate(rows.weight, rows.bias, observation.parameters[passage.bias], gate)
        filled = share.abs() > EMPTY * rows.bias.abs().max()
        images = seen_images(passage.layer, weight[filled] / share[filled, None], observation, self.slack)
        if not len(images):
            raise RequirementError("No bin of the planted layer holds one image alone, so nothing can be read back.")
        like = observation.update.tensors[passage.bias]
        domain = observation.task.domain
        note = (
            f"{len(images)} images were read out of {len(share)} bins, with {passage.layer.arriving:.0%} of the pixels."
        )
        return Reconstruction(
            fields={domain.inputs: images.to(like.dtype)},
            attack=self.name,
            objective=0.0,
            stopped="exact",
            seconds=time.perf_counter() - started,
            notes=(note,),
        )
