"""Uniform quantisation to the nearest level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invertigo.defenses.entries import Tensors, bits_to_bytes
from invertigo.defenses.registry import register
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step, ThreatLevel

SCALE_BYTES = 4


@register
@dataclass(frozen=True, kw_only=True)
class Quantise(Defense):
    r"""Each layer's entries to the nearest multiple of $\Delta = \max|u| / (2^{b-1} - 1)$.

    The error of an entry is at most $\Delta / 2$. Sent as `bits` an entry and one scale a layer.

    Args:
        bits: b, from 2 (three levels) to 16.

    Source: the uniform scheme that Yue et al. (2023) audit.
    """

    name: ClassVar[str] = "quantise"
    paper: ClassVar[Paper] = Paper(
        "yue2023gradient",
        "Gradient Obfuscation Gives a False Sense of Security in Federated Learning",
        "Yue, Kai and Jin, Richeng and Wong, Chau-Wai and Baron, Dror and Dai, Huaiyu",
        2023,
        "USENIX Security Symposium",
        "2206.04055",
    )
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "bits"
    strengths: ClassVar[tuple[float, ...]] = (16, 8, 6, 4, 3, 2)

    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16 or self.bits != int(self.bits):
            raise InvalidValueError(
                f"bits is {self.bits}; quantisation here takes a whole number from 2 to 16. Fewer bits hide more; for "
                "one bit an entry use the defense 'sign'."
            )

    @property
    def levels(self) -> int:
        """Steps from zero to the largest entry."""
        return 2 ** (int(self.bits) - 1) - 1

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The update, rounded."""
        return {name: self._rounded(tensor) for name, tensor in update.items()}

    def wire_bytes(self, update: Tensors) -> int:
        """`bits` an entry and a 32-bit scale a layer."""
        return sum(bits_to_bytes(t.numel() * self.bits) + SCALE_BYTES for t in update.values())

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Rounding is taken for uniform noise of standard deviation step / sqrt(12); each layer shows its own step."""
        sent = observation.update.tensors
        widths = {name: self._width(t) for name, t in sent.items()}
        summed = observation.knowledge.level is ThreatLevel.AGGREGATE
        return AdversaryView(
            knows="Each layer's rounding step, which its largest entry tells: rounding is weighed as noise, and "
            "candidates are told apart by how many of their entries would have been rounded alike.",
            noise_std={name: width / math.sqrt(12) for name, width in widths.items()},
            replay=None if summed else lambda update: {k: _on_grid(t, widths[k]) for k, t in update.items()},
        )

    def _width(self, tensor: Tensor) -> float:
        """The step between levels; the largest entry is a level itself, so a quantised layer shows the same one."""
        return float(tensor.detach().double().abs().max()) / self.levels

    def _rounded(self, tensor: Tensor) -> Tensor:
        return _on_grid(tensor, self._width(tensor))


def _on_grid(tensor: Tensor, width: float) -> Tensor:
    """Each entry rounded to a multiple of `width`; as it is where that is 0."""
    return tensor.clone() if width == 0 else ((tensor.double() / width).round() * width).to(tensor.dtype)
