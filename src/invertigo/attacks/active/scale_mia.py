"""Scale-MIA: bins in the latent space of an autoencoder whose encoder is the client's own model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.active.bins import EMPTY, bin_rows, normal_edges, reading_columns, separate
from invertigo.attacks.active.encoder import Middle, codes, find_middle, fit_encoder, rebuilt_decoder
from invertigo.attacks.active.gate import find_gate
from invertigo.attacks.registry import register
from invertigo.domains import Images
from invertigo.federation.functional import simulating
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

BATCHES = 32, 64
"""Sizes of the batches in which the autoencoder is trained: the client's, within these."""


@register
@dataclass(frozen=True, kw_only=True)
class ScaleMIA:
    r"""The model's own layers encode, its hidden linear layer sorts codes into bins, a decoder kept back draws them.

    An autoencoder is trained on public images; its encoder has the architecture of the layers before the hidden linear
    layer, so that pooling, normalisation and smooth activations are no obstacle, and is planted there. The hidden
    layer measures $h \cdot z$ of the code $z = E(x)$ in equally likely bins, and as in `imprint` the gradients of a bin
    give the code that is alone in it, exactly; $\hat x = D(z)$ is as good as the autoencoder. Where more bins are
    filled than the batch holds, those whose picture encodes best back to their code are kept.

    Args:
        measure: `mean` of the code, or `random`, a direction across its principal spread.
        steps: of training. width: of the decoder's hidden layer.

    Source: Shi et al. 2025. The released code takes the bins from the private batch's own codes, an oracle; here they
    are fitted to the codes of public images.
    """

    name: ClassVar[str] = "scale_mia"
    paper: ClassVar[Paper] = Paper(
        "shi2025scalemia",
        "Scale-MIA: A Scalable Model Inversion Attack against Secure Federated Learning via Latent Space "
        "Reconstruction",
        "Shi, Shanghao and Wang, Ning and Xiao, Yang and Zhang, Chaoyu and Shi, Yi and Hou, Y. Thomas and Lou, Wenjing",
        2025,
        "Network and Distributed System Security Symposium",
        "2311.05808",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.CRAFTED_MODEL, Requirement.PUBLIC_DATA})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    measure: str = "random"
    steps: int = 1500
    width: int = 256

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
        if public is None:
            raise RequirementError("Scale-MIA trains its autoencoder on public images; give data.public_count above 0.")
        middle, parameters = find_middle(task, local.mode), dict(task.model.named_parameters())
        weight, bias, consumer = (parameters[n] for n in (middle.weight, middle.bias, middle.consumer))
        images = public[task.domain.inputs].to(weight)
        model, decoder = fit_encoder(
            task,
            middle,
            images,
            local.mode,
            width=self.width,
            steps=self.steps,
            batch_size=min(max(num_examples, BATCHES[0]), BATCHES[1]),
            generator=generator,
        )
        with simulating(model, local.mode), torch.no_grad():
            seen = codes(model, middle, images).double().cpu()
        direction = self._direction(seen, generator)
        gate = find_gate(task, middle.layer, middle.consumer)
        spread = (seen @ direction).sort().values
        edges = _quantiles(spread, normal_edges(len(bias), gate))
        rows, shifts = bin_rows(direction, edges, gate, 1.0)
        columns = reading_columns(len(consumer), len(bias), gate, float(spread.std()), generator)
        own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        state = {name: own[name].detach().clone() for name in middle.before}
        state |= {middle.weight: rows.to(weight), middle.bias: shifts.to(bias), middle.consumer: columns.to(consumer)}
        return Plant(self.name, state, memo=dict(decoder.state_dict()))

    def _direction(self, seen: Tensor, generator: torch.Generator) -> Tensor:
        """(feature,) of unit spread over the public codes."""
        if self.measure == "mean":
            direction = torch.ones(seen.shape[1], dtype=torch.float64)
        else:
            # A random mixture of codes lies in the directions in which codes differ.
            drawn = torch.randn(len(seen), generator=generator, dtype=torch.float64)
            direction = drawn @ (seen - seen.mean(0))
        return direction / (seen @ direction).std().clamp_min(1e-12)

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        started = time.perf_counter()
        check_requirements(self, observation)
        domain, plant = observation.task.domain, observation.knowledge.plant
        assert plant is not None
        assert isinstance(domain, Images)
        middle = find_middle(observation.task, observation.local.mode)
        latent, bins = self._codes(observation, middle)
        if not len(latent):
            raise RequirementError("Every bin of the planted layer is empty, so no code can be read back.")
        decoder = rebuilt_decoder(domain.shape, plant.memo)
        with torch.no_grad():
            images = domain.from_unit(decoder(latent.to(plant.memo["linear.weight"])).clamp(0, 1))
            best = self._faithful(observation, middle, images, latent)
        return Reconstruction(
            fields={domain.inputs: images[best]},
            attack=self.name,
            objective=0.0,
            stopped="exact",
            seconds=time.perf_counter() - started,
            notes=(f"{len(best)} codes were read out of {bins} bins, and drawn by the decoder.",),
        )

    def _codes(self, observation: Observation, middle: Middle) -> tuple[Tensor, int]:
        sent = observation.update.tensors
        sign = 1.0 if observation.update.kind == "gradient" else -1 / observation.local.learning_rate
        gate = find_gate(observation.task, middle.layer, middle.consumer)
        weight, share = separate(
            sign * sent[middle.weight].double(),
            sign * sent[middle.bias].double(),
            observation.parameters[middle.bias],
            gate,
        )
        filled = share.abs() > EMPTY * sent[middle.bias].double().abs().max() * abs(sign)
        return weight[filled] / share[filled, None], len(share)

    def _faithful(self, observation: Observation, middle: Middle, images: Tensor, latent: Tensor) -> Tensor:
        """Indices of as many codes as the batch holds, those first that their picture encodes back to."""
        model = observation.task.model
        with simulating(model, observation.local.mode):
            again = codes(model, middle, images).double()
        error = (again - latent).norm(dim=1) / latent.norm(dim=1).clamp_min(1e-12)
        return error.nan_to_num(torch.inf).argsort()[: observation.num_examples]


def _quantiles(values: Tensor, normal: Tensor) -> Tensor:
    """Edges at the same probabilities as the standard `normal` ones, among sorted `values`; the outermost far out.

    Between the public examples the empirical quantiles are interpolated; beyond them, half of their range is added.
    """
    edges = values.quantile(torch.special.ndtr(normal))
    reach = 0.5 * (values[-1] - values[0])
    edges = torch.where(normal <= -8, values[0] - reach, torch.where(normal >= 8, values[-1] + reach, edges))
    return edges
