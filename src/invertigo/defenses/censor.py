"""CENSOR: a random gradient at right angles to the true one, the best of several trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from invertigo.attacks.releases import mean_update
from invertigo.defenses.orthogonal import Block, Projection, blocks, orthogonal_to
from invertigo.defenses.orthogonal_view import bare_releases, view_of_avoided_directions
from invertigo.defenses.registry import register
from invertigo.defenses.trials import best_of
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step

Tensors = Mapping[str, Tensor]
Fallback = Literal["raw", "best_trial", "skip", "noise"]


@register
@dataclass(frozen=True, kw_only=True)
class Censor(Defense):
    r"""In every step, release a random gradient that is orthogonal to the true one layer by layer, and as long:

    $G_l = \lVert g_l\rVert\, u_l / \lVert u_l\rVert$, $u_l = r_l - \frac{\langle r_l, g_l\rangle}{\langle g_l, g_l
    \rangle} g_l$, $r_l$ uniform on the sphere. Of $T$ such trials the one that leaves the least loss
    $L(\theta - \eta G)$ is taken, if that is less than $L(\theta)$.

    What to do when no trial lowers the loss is the weak spot. At right angles the loss does not change to first order,
    so this happens often (in up to 19 of 20 steps of a small network), and the published algorithm then releases the
    **true** gradient. Here that has to be asked for: `fallback="raw"`. Without it a small network learns next to
    nothing, as no step ever goes along its gradient.

    Orthogonality is a leak of its own: releases for the same batch all lie in the plane orthogonal to $g_l$, so
    $d - 1$ of them determine a layer of $d$ entries, and a layer's length is sent as it is. `group` takes small layers
    together, which the published method does not.

    Args:
        trials: $T$, at least 1.
        fallback: what is sent when no trial lowers the loss: `best_trial` the least harmful one, `raw` the true
            gradient (the published algorithm), `skip` zeros, `noise` random layers of the same lengths.
        projection: `eq12` as published, or `released`, the authors' code, which divides by $\lVert g_l\rVert$ instead
            of its square and so leaves part of the gradient in.
        step_size: $\eta$ of the trials; None takes the client's learning rate. The authors' code has 1e-4.
        epochs: protect only so many rounds, then send the true gradient (10 in the authors' code); None: all.
        group: least entries of a vector that is projected; smaller layers are joined. 0: each layer for itself.

    Losses are compared in float64; the authors' code compares them in float32, where `step_size` 1e-4 leaves mostly
    rounding noise. In their evaluation, training goes on with undefended steps after one defended step an epoch.

    Source: Zhang et al. (2025), Algorithm 1 and Equation 12.
    """

    name: ClassVar[str] = "censor"
    paper: ClassVar[Paper] = Paper(
        "zhang2025censor",
        "CENSOR: Defense Against Gradient Inversion via Orthogonal Subspace Bayesian Sampling",
        "Zhang, Kaiyuan and Cheng, Siyuan and Shen, Guangyu and Ribeiro, Bruno and An, Shengwei and Chen, Pin-Yu "
        "and Zhang, Xiangyu and Li, Ninghui",
        2025,
        "Network and Distributed System Security Symposium",
        "2501.15718",
    )
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "trials"
    strengths: ClassVar[tuple[float, ...]] = (50, 20, 5, 1)

    trials: int = 20
    fallback: Fallback = "best_trial"
    projection: Projection = "eq12"
    step_size: float | None = 1e-4
    epochs: int | None = None
    group: int = 0

    def __post_init__(self) -> None:
        for setting, allowed in (("fallback", get_args(Fallback)), ("projection", get_args(Projection))):
            if getattr(self, setting) not in allowed:
                raise InvalidValueError(
                    f"censor.{setting} is {getattr(self, setting)!r}; choose one of {', '.join(allowed)}."
                )
        if self.trials < 1 or self.trials != int(self.trials):
            raise InvalidValueError(
                f"censor.trials is {self.trials}: without a whole number of trials, at least one, there is nothing to "
                "release but the true gradient. The paper takes 20."
            )
        if self.step_size is not None and not self.step_size > 0:
            raise InvalidValueError(
                f"censor.step_size is {self.step_size}; trials are judged by the loss after a step of this size, so it "
                "must be positive (1e-4 in the authors' code; null takes the client's learning rate)."
            )
        if (self.epochs is not None and self.epochs < 1) or self.group < 0:
            raise InvalidValueError(
                f"censor.epochs is {self.epochs} and censor.group is {self.group}: with less than one protected round "
                "every true gradient is sent, and a group cannot have fewer than 0 entries. Leave them out to protect "
                "always, layer by layer."
            )

    def on_gradient(self, gradient: Tensors, step: Step) -> Tensors:
        """The best orthogonal trial, or what `fallback` says."""
        if self.epochs is not None and step.round >= self.epochs:
            _count(step, unprotected=1)
            return gradient
        layout = self._layout(gradient)
        rate = step.local.learning_rate if self.step_size is None else self.step_size
        best = best_of(
            int(self.trials), lambda: orthogonal_to(gradient, layout, self.projection, step.generator), step, rate
        )
        release = best.release if best.improves else self._instead(gradient, best.release, layout, step)
        _count(step, steps=1, trials=int(self.trials), fallbacks=0 if best.improves else 1)
        worst = max(step.facts.get("worst_layer_cosine", 0.0), _worst_cosine(gradient, release, layout))
        step.facts["worst_layer_cosine"] = worst
        return release

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """True gradients that slipped through, else what all releases together tell."""
        releases = observation.releases or (observation.update,)
        bare = bare_releases(observation, releases, after=self.epochs, search=self.fallback == "raw")
        if bare:
            return AdversaryView(
                f"knows that true gradients slip through, and found {len(bare)} of {len(releases)} releases to be such",
                update=mean_update(bare),
            )
        if self.projection == "released":
            return AdversaryView(
                f"knows that the releases keep a part of the gradient and each layer's length: mean of {len(releases)}",
                update=mean_update(releases, keep_length=True),
            )
        spare = 1 if self.fallback == "noise" else 0
        return view_of_avoided_directions(observation, releases, self._layout(observation.parameters), spare=spare)

    def _layout(self, tensors: Tensors) -> list[Block]:
        return blocks({name: tensor.numel() for name, tensor in tensors.items()}, self.group)

    def _instead(
        self, gradient: Tensors, trial: dict[str, Tensor], layout: list[Block], step: Step
    ) -> dict[str, Tensor]:
        if self.fallback == "raw":
            return {name: tensor.clone() for name, tensor in gradient.items()}
        if self.fallback == "skip":
            return {name: torch.zeros_like(tensor) for name, tensor in gradient.items()}
        return _noise(gradient, layout, step.generator) if self.fallback == "noise" else trial


def _noise(gradient: Tensors, layout: list[Block], generator: torch.Generator) -> dict[str, Tensor]:
    """Gaussian noise, each block as long as the gradient's."""
    drawn = {
        name: torch.randn(g.shape, generator=generator, device=generator.device, dtype=torch.float64).to(g.device)
        for name, g in gradient.items()
    }
    scale = {name: _length(gradient, block) / _length(drawn, block) for block in layout for name in block}
    return {name: (drawn[name] * scale[name]).to(g) for name, g in gradient.items()}


def _length(tensors: Tensors, block: Block) -> float:
    return _flat(tensors, block).norm().item()


def _flat(tensors: Tensors, block: Block) -> Tensor:
    return torch.cat([tensors[name].detach().double().flatten() for name in block])


def _worst_cosine(gradient: Tensors, release: Tensors, layout: list[Block]) -> float:
    """Largest |cosine| of a block of the release with the true gradient's."""
    pairs = ((_flat(gradient, block), _flat(release, block)) for block in layout)
    return max(abs(float(a @ b)) / max(float(a.norm() * b.norm()), 1e-300) for a, b in pairs)


def _count(step: Step, **added: int) -> None:
    for name, number in added.items():
        step.facts[name] = step.facts.get(name, 0.0) + number
