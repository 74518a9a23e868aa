"""Gradient matching whose unknowns are the inputs of one stage of a decoder instead of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from invertigo.attacks.matching.priors import Belief
from invertigo.attacks.matching.problem import Problem
from invertigo.attacks.matching.space import Field, Space
from invertigo.domains import Images
from invertigo.models.autoencoder import Autoencoder
from invertigo.types import AdversaryView

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Drawing:
    """What the autoencoder's decoder draws from the input of `stage`, as the model reads it.

    The unknowns of stage 0 are standardised latents, those of later stages the decoder's feature maps.
    """

    prior: Autoencoder
    domain: Images
    stage: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the unknown behind one image."""
        like = self.prior.mean.new_zeros(1, len(self.prior.mean))
        return tuple(self.features(like).shape[1:])

    def features(self, latents: Tensor) -> Tensor:
        """The unknowns of this stage that latents (..., latent) lead to."""
        flat = latents.reshape(-1, latents.shape[-1])
        if self.stage == 0:
            return latents
        for number in range(self.stage):
            flat = self.prior.decoder.run(number, self._raw(flat) if number == 0 else flat)
        return flat.unflatten(0, latents.shape[:-1])

    def __call__(self, unknown: Tensor) -> Tensor:
        """Images (image, channel, height, width) from unknowns (image, *shape)."""
        given = self._raw(unknown) if self.stage == 0 else unknown
        return self.domain.from_unit(self.prior.decoder(given, self.stage))

    def _raw(self, latents: Tensor) -> Tensor:
        return latents * self.prior.deviation + self.prior.mean


@dataclass(frozen=True)
class StayNear:
    r"""$w\,\overline{(u - u_0)^2}$: unknowns of a stage stay near those that an earlier stage led to."""

    weight: float
    origin: Tensor

    def __call__(self, belief: Belief) -> Tensor:
        """See `matching.priors.Prior`; what stands for the images are the unknowns."""
        return self.weight * (belief.images - self.origin).square().flatten(1).mean(1)


def inside(problem: Problem, drawing: Drawing) -> Problem:
    """The same problem with the images drawn from unknowns that take their place in the space.

    What the client does to its batch, as far as the adversary knows, follows after the drawing.
    """
    observation, inputs = problem.observation, problem.observation.task.domain.inputs
    view = observation.knowledge.view or AdversaryView("")
    client = view.transform

    def transform(fields: Tensors) -> Tensors:
        drawn = {**fields, inputs: drawing(fields[inputs])}
        return drawn if client is None else client(drawn)

    fields = {**problem.space.fields, inputs: Field((problem.num_examples, *drawing.shape))}
    knowledge = replace(observation.knowledge, view=replace(view, transform=transform))
    return replace(problem, observation=replace(observation, knowledge=knowledge), space=Space(fields))
