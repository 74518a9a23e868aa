"""Only the signs of the update are sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.defenses.entries import Tensors, bits_to_bytes
from invertigo.defenses.registry import register
from invertigo.types import (
    ANY_DOMAIN,
    AdversaryView,
    Defense,
    InvalidValueError,
    Observation,
    Paper,
    Step,
    ThreatLevel,
    Update,
)

SCALE_BYTES = 4


@register
@dataclass(frozen=True, kw_only=True)
class Sign(Defense):
    r"""$a_l\,\mathrm{sgn}(u)$ in each layer $l$, with $a_l$ its mean magnitude (`scaled`) or `step`.

    Zero entries stay zero, as in common implementations; they tell which units were silent.

    Args:
        scaled: send each layer's mean magnitude along, so that the release is about as long as the update.
        step: length of every entry without `scaled`, positive.
        sharpness: beta of the adversary's surrogate; it changes nothing on the client.

    Source: Bernstein et al. (2018); scaled as in Karimireddy et al. (2019), "Error Feedback Fixes SignSGD and other
    Gradient Compression Schemes", without their error feedback.
    """

    name: ClassVar[str] = "sign"
    paper: ClassVar[Paper] = Paper(
        "bernstein2018signsgd",
        "signSGD: Compressed Optimisation for Non-Convex Problems",
        "Bernstein, Jeremy and Wang, Yu-Xiang and Azizzadenesheli, Kamyar and Anandkumar, Animashree",
        2018,
        "International Conference on Machine Learning",
        "1802.04434",
    )
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "scaled"
    strengths: ClassVar[tuple[float, ...]] = (True, False)

    scaled: bool = True
    step: float = 1.0
    sharpness: float = 3.0

    def __post_init__(self) -> None:
        for setting in ("step", "sharpness"):
            if not getattr(self, setting) > 0:
                raise InvalidValueError(
                    f"{setting} is {getattr(self, setting)}; it must be positive. Signs are all that this defense "
                    "leaves of an update, and a length of zero or less would destroy or flip them."
                )

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The update's signs, each layer at one length."""
        return {k: t.sign() * (t.abs().mean() if self.scaled else self.step) for k, t in update.items()}

    def wire_bytes(self, update: Tensors) -> int:
        """A bit an entry, another where zeros must be told from signs, and a 32-bit scale a layer if there is one."""
        bits = sum(t.numel() * (1 if bool(t.all()) else 2) for t in update.values())
        return bits_to_bytes(bits) + (SCALE_BYTES * len(update) if self.scaled else 0)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        r"""A soft sign $\tanh(\beta u / \overline{|u|})$ of the simulated update, which has a slope to follow.

        Every entry of every layer tells one sign, so all are matched at length 1. Even the truth's soft sign is not its
        sign; what lies between them on average is weighed as noise, so that the priors hold against it. Of the
        candidates with stronger and weaker priors, the one whose very signs agree best is taken.
        """
        received, unmatched = observation.update, _softness(self.sharpness)
        signs = {name: t / t.abs().max().clamp_min(_tiny(t)) for name, t in received.tensors.items()}
        summed = observation.knowledge.level is ThreatLevel.AGGREGATE
        return AdversaryView(
            knows="Only signs are sent: the simulated update passes through a soft sign, what a soft sign misses is "
            "weighed as noise, and candidates are told apart by how many signs they get right.",
            update=Update(signs, received.kind, received.buffers),
            surrogate=lambda update: {name: _soft_sign(t, self.sharpness) for name, t in update.items()},
            replay=None if summed else lambda update: {name: t.sign() for name, t in update.items()},
            noise_std=dict.fromkeys(signs, unmatched),
        )


def _soft_sign(rows: Tensor, sharpness: float) -> Tensor:
    """tanh of each entry over its layer's mean magnitude, row by row."""
    scale = rows.detach().abs().flatten(1).mean(1).clamp_min(_tiny(rows))
    return (sharpness * rows / scale.view(-1, *[1] * (rows.ndim - 1))).tanh()


def _softness(sharpness: float) -> float:
    r"""$\sqrt{\mathbb E\,(1 - \tanh \beta m)^2}$ for magnitudes with density $e^{-m}$, those of Laplacian entries."""
    chances = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    return float((1 - (-sharpness * chances.log()).tanh()).square().mean().sqrt())


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny
