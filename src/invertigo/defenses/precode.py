"""PRECODE: a variational bottleneck before the classifier makes every gradient random."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from invertigo.defenses.last_layer import find_last_layer
from invertigo.defenses.registry import register
from invertigo.models.building import weights_drawn_by
from invertigo.types import AdversaryView, Batch, Defense, InvalidValueError, Observation, Paper, Step, Task, duplicate

NOISE = "bottleneck_noise"
"""Field of a batch that holds the draw of each example; without it the bottleneck passes its mean on."""


@register
@dataclass(frozen=True, kw_only=True)
class Precode(Defense):
    r"""Put a variational bottleneck before the last linear layer, and draw anew for every example and step:

    $(\mu, s) = W_e r + b_e$, $\sigma = \mathrm{softplus}(s)$, $z = \mu + \sigma \odot \varepsilon$,
    $\hat r = W_d z + b_d$, with $\beta\, \mathrm{KL}(\mathcal N(\mu, \sigma^2) \,\|\, \mathcal N(0, 1)) / \ln 2$ added
    to the loss.

    It changes the model of all clients (`prepare`), so it has to be chosen before training. Outside of training the
    bottleneck passes $\mu$ on.

    Args:
        size: entries of $z$.
        beta: weight of the divergence, at least 0.

    Source: Scheliga, Maeder, Seeland (2022). Balunovic et al. (2022) show that it gives way to an adversary who
    optimises $\varepsilon$ with the image, which is our informed attacker.
    """

    name: ClassVar[str] = "precode"
    paper: ClassVar[Paper] = Paper(
        "scheliga2022precode",
        "PRECODE - A Generic Model Extension to Prevent Deep Gradient Leakage",
        'Scheliga, Daniel and M{\\"a}der, Patrick and Seeland, Marco',
        2022,
        "IEEE/CVF Winter Conference on Applications of Computer Vision",
        "2108.04725",
    )
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "beta"
    strengths: ClassVar[tuple[float, ...]] = (1e-4, 1e-3, 1e-2, 1e-1)

    size: int = 256
    beta: float = 1e-3

    def __post_init__(self) -> None:
        if self.size < 1 or self.beta < 0:
            raise InvalidValueError(
                f"precode.size is {self.size} and precode.beta is {self.beta}: the bottleneck needs at least one "
                "random entry to hide anything, and a negative weight would reward it for being predictable. The paper "
                "has size=256 and beta=0.001."
            )

    def prepare(self, task: Task, public: Batch | None, *, generator: torch.Generator) -> Task:
        """The task with the bottleneck in its model and the divergence in its loss.

        Raises: InvalidValueError for a training step of the user's own, or a model without a linear classifier.
        """
        if task.step_loss is not None:
            raise InvalidValueError(
                "precode adds a divergence to the loss, but this task computes its own training step (step_loss), "
                "where it cannot see the model's output. Build the bottleneck into the model, or pass Task(loss=...)."
            )
        model = duplicate(task.model)
        found, _, module = find_last_layer(self.name, task, model, "train" if model.training else "eval")
        with weights_drawn_by(generator):
            bottleneck = Bottleneck(module.in_features, self.size)
        return replace(
            task,
            model=Bottlenecked(model, found.name, bottleneck.to(module.weight)),
            step_loss=self._step_loss(task),
        )

    def _step_loss(self, task: Task) -> Callable[[Callable[..., Tensor], Mapping[str, Tensor]], Tensor]:
        inputs, target = task.domain.inputs, task.domain.target

        def loss(call: Callable[..., Tensor], fields: Mapping[str, Tensor]) -> Tensor:
            images = fields[inputs]
            noise = fields[NOISE] if NOISE in fields else images.new_zeros(len(images), self.size)
            logits, divergence = call(images, noise).tensor_split([-1], dim=1)
            return task.loss(logits, fields[target]) + self.beta / math.log(2) * divergence.mean()

        return loss

    def on_batch(self, batch: Batch, step: Step) -> Batch:
        """The batch with a fresh draw for every example."""
        return Batch(self._drawn(batch.fields, step.generator))

    def _drawn(self, fields: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        like = next(tensor for tensor in fields.values() if tensor.is_floating_point())
        shape, device = (len(like), self.size), generator.device
        return {**fields, NOISE: torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like)}

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Look for the draws together with the images."""
        count = observation.num_examples
        return AdversaryView(
            knows="The adversary knows the bottleneck's weights, as it sent them, and optimises its random draws "
            "together with the images.",
            unknowns={NOISE: (count, self.size)} if count else None,
            draw=self._drawn,
        )


class Bottleneck(nn.Module):
    """A random code of `size` entries between features of width `width`."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.encode = nn.Linear(width, 2 * size)
        self.decode = nn.Linear(size, width)

    def forward(
        self, features: Float[Tensor, "batch width"], noise: Float[Tensor, "batch size"] | None = None
    ) -> tuple[Float[Tensor, "batch width"], Float[Tensor, " batch"]]:
        """Features decoded from the code, and the code's divergence from a standard normal in nats."""
        mean, raw = self.encode(features).chunk(2, dim=-1)
        std = softplus(raw)
        code = mean if noise is None else mean + std * noise
        divergence = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(-1)
        return self.decode(code), divergence


class Bottlenecked(nn.Module):
    """`model` with a bottleneck before its submodule `layer`."""

    def __init__(self, model: nn.Module, layer: str, bottleneck: Bottleneck) -> None:
        super().__init__()
        self.model, self.layer, self.bottleneck = model, layer, bottleneck
        self.training = model.training

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Logits (batch, class) of `images`; with `noise` (batch, size), the divergence as one more column."""
        told: list[Tensor] = []

        def insert(_module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
            decoded, divergence = self.bottleneck(inputs[0], noise)
            told.append(divergence)
            return decoded

        handle = self.model.get_submodule(self.layer).register_forward_pre_hook(insert)
        try:
            logits = self.model(images)
        finally:
            handle.remove()
        return logits if noise is None else torch.cat([logits, told[-1][:, None]], dim=1)
