"""Stochastic quantisation that is right on average."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.defenses.entries import Tensors, bits_to_bytes
from invertigo.defenses.registry import register
from invertigo.defenses.releases import mean_release, released
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step

SCALE_BYTES = 4


@register
@dataclass(frozen=True, kw_only=True)
class QSGD(Defense):
    r"""$\lVert v\rVert_2\, \mathrm{sgn}(v_i)\, \xi_i$ for every bucket $v$ of a layer, with $\mathbb E\,\xi_i = |v_i|/\lVert v\rVert_2$.

    $\xi_i$ is one of the two multiples of $1/s$ around $|v_i| / \lVert v\rVert_2$, drawn so that the expectation holds:
    the release is unbiased, and its mean over rounds goes to the raw update.

    Args:
        levels: s >= 1, steps between zero and the bucket's length.
        bucket: entries that share one length; the last bucket of a layer may be shorter.

    Source: Alistarh et al. (2017), with their buckets of 512. They compress the levels further by Elias codes, which we
    do not count: `wire_bytes` is a fixed width an entry.
    """  # noqa: E501

    name: ClassVar[str] = "qsgd"
    paper: ClassVar[Paper] = Paper(
        "alistarh2017qsgd",
        "QSGD: Communication-Efficient SGD via Gradient Quantization and Encoding",
        "Alistarh, Dan and Grubic, Demjan and Li, Jerry and Tomioka, Ryota and Vojnovic, Milan",
        2017,
        "Advances in Neural Information Processing Systems",
        "1610.02132",
    )
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "levels"
    strengths: ClassVar[tuple[float, ...]] = (255, 63, 15, 7, 3, 1)

    levels: int = 15
    bucket: int = 512

    def __post_init__(self) -> None:
        if self.levels < 1 or self.levels != int(self.levels):
            raise InvalidValueError(
                f"levels is {self.levels}; a whole number of at least 1 is needed. Fewer levels hide more of a single "
                "release: 1 sends signs and zeros."
            )
        if self.bucket < 1:
            raise InvalidValueError(
                f"bucket is {self.bucket}; at least one entry must share a scale (512 in the paper)."
            )

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The update, rounded at random."""
        return {name: self._rounded(tensor, step.generator) for name, tensor in update.items()}

    def wire_bytes(self, update: Tensors) -> int:
        """A sign and a level an entry, and a 32-bit length a bucket."""
        width = 1 + math.ceil(math.log2(self.levels + 1))
        return sum(
            bits_to_bytes(t.numel() * width) + SCALE_BYTES * math.ceil(t.numel() / self.bucket) for t in update.values()
        )

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The mean over releases, and an estimate of what is left of the rounding in it."""
        updates = released(observation)
        left = {
            name: math.sqrt(sum(self._variance(u.tensors[name]) for u in updates)) / len(updates)
            for name in observation.parameters
        }
        return AdversaryView(
            knows=f"Rounding errors are zero on average, so {len(updates)} releases are averaged; what is left is "
            "weighed as noise.",
            update=mean_release(observation),
            noise_std=left,
        )

    def _rounded(self, tensor: Tensor, generator: torch.Generator) -> Tensor:
        values = self._buckets(tensor)
        width = values.norm(dim=1, keepdim=True) / self.levels
        ratio = torch.where(width > 0, values.abs() / width, 0.0)
        draw = torch.rand(ratio.shape, generator=generator, device=generator.device, dtype=ratio.dtype).to(ratio.device)
        rounded = values.sign() * width * (ratio.floor() + (draw < ratio - ratio.floor()))
        return rounded.flatten()[: tensor.numel()].view(tensor.shape).to(tensor.dtype)

    def _variance(self, sent: Tensor) -> float:
        r"""Mean variance of the rounding error, told from a release.

        An entry at $f$ of the way between two levels $\Delta$ apart has variance $\Delta^2 f(1-f)$: at most
        $\Delta |v_i|$, which is nearly reached under the first level, and $\Delta^2/6$ on average over $f$. $\Delta$ is
        told by the smallest entry that is not zero.
        """
        values = self._buckets(sent).abs()
        width = torch.where(values > 0, values, torch.inf).amin(1)
        width = torch.where(width.isfinite(), width, 0.0)
        each = torch.minimum(width * values.mean(1), width**2 / 6)
        return float(each.mean())

    def _buckets(self, tensor: Tensor) -> Tensor:
        """(bucket, entry) in float64, the last one filled up with zeros."""
        flat = tensor.detach().double().flatten()
        missing = -len(flat) % min(self.bucket, max(len(flat), 1))
        return torch.cat([flat, flat.new_zeros(missing)]).view(-1, min(self.bucket, max(len(flat), 1)))
