"""LOKI: kernels of its own for every client keep their images apart in a secure sum."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.active.bins import EMPTY, bin_rows, loudness, normal_edges, reading_columns, separate
from invertigo.attacks.active.gate import Gate, find_gate
from invertigo.attacks.active.passage import Passage, Slot, find_passage
from invertigo.attacks.active.reading import seen_images
from invertigo.attacks.exact.layer_gradients import layer_gradients
from invertigo.attacks.exact.peeling import Layer
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
class Loki:
    r"""Client $i$ gets a first convolution that copies pixels into its own channels and leaves the others zero.

    The hidden layer sorts images into bins of $h \cdot x$ as `imprint` does. Its weight gradient has columns for the
    channels of each client, which no other client touches, so the sum over clients falls apart into one imprint for
    each: the bins are shared, but an image collides with those of its own client only. One more channel a client is
    always 1 on that client alone; its columns sum up the client's own $\delta$, where the bias gradient is everybody's:
    $x_k = \Delta g_{W,k}[\text{pixels}_i] / \Delta g_{W,k}[\text{one}_i]$.

    Args:
        gain: factor on the measuring rows.
        slack: how far pixels may leave their range, as a fraction of it, before a ratio counts as a mixture.
        amplify: factor on the kernels where clients take local steps and bins have two edges. The larger it is, the
            less these steps change kernels, and the less the rounding of parameters hides; one gradient needs neither.

    Source: Zhao et al. 2024. The channel of ones is ours (the released code scales images by their brightest pixel);
    bins with two edges, which several local steps do not blur, need an activation that closes above.
    """

    name: ClassVar[str] = "loki"
    paper: ClassVar[Paper] = Paper(
        "zhao2024loki",
        "LOKI: Large-scale Data Reconstruction Attack against Federated Learning through Model Manipulation",
        "Zhao, Joshua C. and Sharma, Atul and Elkordy, Ahmed Roushdy and Ezzeldin, Yahya H. and Avestimehr, Salman "
        "and Bagchi, Saurabh",
        2024,
        "IEEE Symposium on Security and Privacy",
        "2303.12233",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.CRAFTED_MODEL})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    gain: float = 1.0
    slack: float = 0.05
    amplify: float = 512.0

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
        plain = find_passage(task, local.mode, slot=Slot(0, clients))
        assert plain.consumer is not None
        gate = find_gate(task, plain.layer.name, plain.consumer)
        # Steps on bins that share their rows move these rows, the more the louder their inputs are.
        gain = self.amplify if local.sends == "difference" and gate.closes_above else 1.0
        passages = [find_passage(task, local.mode, slot=Slot(i, clients, gain)) for i in range(clients)]
        first, parameters = passages[0], dict(task.model.named_parameters())
        assert first.consumer is not None
        weight, bias, consumer = (parameters[n] for n in (first.layer.weight_name, first.bias, first.consumer))
        pixels = torch.Size(first.layer.shape).numel()
        drawn = torch.randn(pixels, generator=generator, dtype=torch.float64)
        direction = sum((_measuring(p, drawn) for p in passages), torch.zeros(weight.shape[1], dtype=torch.float64))
        centre, deviation = _law(first, drawn, task, public)
        rows, shifts = bin_rows(direction, normal_edges(len(bias), gate) * deviation + centre, gate, self.gain)
        columns = reading_columns(len(consumer), len(bias), gate, deviation * self.gain, generator, loudness(local))
        planted = {
            first.layer.weight_name: rows.to(weight),
            first.bias: shifts.to(bias),
            first.consumer: columns.to(consumer),
        }
        own = tuple({name: p.state[name] for name in list(p.state)[:2]} for p in passages)
        shared = {name: tensor for name, tensor in first.state.items() if name not in own[0]}
        memo = {"clients": torch.tensor(clients), "gain": torch.tensor(gain, dtype=torch.float64)}
        return Plant(self.name, {**shared, **planted}, memo=memo, per_client=own)

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        started = time.perf_counter()
        check_requirements(self, observation)
        plant = observation.knowledge.plant
        assert plant is not None
        clients, task, mode = int(plant.memo["clients"]), observation.task, observation.local.mode
        gain = float(plant.memo["gain"])
        passages = [find_passage(task, mode, slot=Slot(i, clients, gain)) for i in range(clients)]
        first = passages[0]
        assert first.consumer is not None
        gate, rows = find_gate(task, first.layer.name, first.consumer), layer_gradients(observation, first.layer)
        found = [self._of_client(observation, passage, gate, rows) for passage in passages]
        images = torch.cat(found)
        if not len(images):
            raise RequirementError("No bin of any client holds one image alone, so nothing can be read back.")
        counts = ", ".join(str(len(one)) for one in found)
        return Reconstruction(
            fields={task.domain.inputs: images.to(observation.update.tensors[passages[0].bias].dtype)},
            attack=self.name,
            objective=0.0,
            stopped="exact",
            seconds=time.perf_counter() - started,
            notes=(f"Images read for each client: {counts}; {passages[0].layer.arriving:.0%} of the pixels arrive.",),
        )

    def _of_client(self, observation: Observation, passage: Passage, gate: Gate, rows: Layer) -> Tensor:
        own = rows.weight[:, passage.constant].mean(1)
        planted = observation.parameters[passage.bias]
        weight, share = separate(rows.weight, own, planted, gate)
        filled = share.abs() > EMPTY * own.abs().max()
        if not bool(filled.any()):
            return passage.layer.images(weight[:0])
        inputs = passage.layer.scale[0] * weight[filled] / share[filled, None]
        return seen_images(passage.layer, inputs, observation, self.slack)


def _measuring(passage: Passage, drawn: Tensor) -> Tensor:
    """(feature,) weights that measure the direction `drawn` (pixel,) on what arrives through one client's channels."""
    pixel = passage.layer.pixel
    assert pixel is not None
    gain = float(passage.layer.scale[0])
    return torch.where(pixel.cpu() >= 0, drawn[pixel.cpu().clamp_min(0)], 0.0) / (gain * len(drawn) ** 0.5)


def _law(passage: Passage, drawn: Tensor, task: Task, public: Batch | None) -> tuple[float, float]:
    """Mean and deviation of the measurement: over public data, else of noise around mid-grey."""
    direction = _measuring(passage, drawn)
    if public is not None:
        seen = passage.layer.inputs(public[task.domain.inputs].double()).cpu() @ direction
        return seen.mean().item(), max(seen.std().item(), 1e-6)
    low, high = (float(bound.mean()) for bound in task.domain.bounds(task.domain.inputs))
    middle = float(passage.layer.scale[0]) * (low + high) / 2 + float(passage.layer.shift[0])
    return middle * direction.sum().item(), 0.25 * (high - low)
