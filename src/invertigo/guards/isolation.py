"""Which examples of the batch can be read off the gradients of single rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from invertigo.guards.conformal import conformal
from invertigo.guards.registry import register
from invertigo.guards.signals import signals_of
from invertigo.types import INVERTIGO, Finding, Gate, History, Local, Paper, Received

PROBE = frozenset({"probe"})
ACTION = "Do not send it as it is: train on more examples a step, clip and add noise, or leave these examples out."


@register
@dataclass(frozen=True, kw_only=True)
class Isolation:
    r"""Share of the batch that is alone in some row: $|\delta_{ik}| \ge s \sum_j |\delta_{jk}|$ for a row k of a hidden
    linear layer, $\delta_{ik}$ being example i's part of the bias gradient.

    The ratio $g_{W,k} / g_{b,k}$ then is that example's input of the layer, exactly when the layer is behind a ReLU
    (s = 1), nearly so behind a GELU. Only slopes are needed: O(batch x rows). An honest model isolates examples too
    when the batch is small; that is a leak, not malice.

    Args:
        dominance: s.
        tolerated: share of the batch beyond which the update should not leave as it is.
    """

    name: ClassVar[str] = "isolation"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = PROBE

    dominance: float = 0.999
    tolerated: float = 0.35

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        return leak(self.name, self.gate, received, local, self.tolerated, lambda s, _: alone(s, self.dominance),
                    "alone in a row")  # fmt: skip


@register
@dataclass(frozen=True, kw_only=True)
class BinIsolation:
    """Share of the batch that is alone in the difference of neighbouring rows, sorted by bias or by how many fire.

    This is how binning attacks read an update; it holds whatever the weights look like.

    Args:
        dominance: share of the difference that one example must make up.
        tolerated: share of the batch beyond which the update should not leave as it is.
    """

    name: ClassVar[str] = "bin_isolation"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = PROBE

    dominance: float = 0.999
    tolerated: float = 0.25

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        return leak(self.name, self.gate, received, local, self.tolerated,
                    lambda s, bias: alone_in_bins(s, bias, self.dominance), "alone between two rows")  # fmt: skip


@register
@dataclass(frozen=True, kw_only=True)
class Dominance:
    """Isolation with slack: the share of the batch that makes up 90 % of a row, as smooth activations leak.

    What such a row shows is a blend with a tenth of other examples, so it is reported and compared with the client's
    own clean rounds (conformal p-value), and not held against `tolerated`.

    Args:
        dominance: share of a row's bias gradient that one example must make up.
    """

    name: ClassVar[str] = "iso90"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = PROBE

    dominance: float = 0.9

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        (found,) = leak(self.name, self.gate, received, local, 2.0, lambda s, _: alone(s, self.dominance),
                        "nine tenths of a row") or (None,)  # fmt: skip
        return () if found is None else (conformal(found, history),)


def alone(slopes: Float[Tensor, "example row"], dominance: float) -> Bool[Tensor, "example row"]:
    """Which example makes up at least `dominance` of a row's total."""
    size = slopes.abs()
    total = size.sum(0)
    # Rows whose slopes drown in rounding show nothing.
    live = total > 1e-6 * total.max().clamp_min(1e-30)
    return (size >= dominance * total) & live & (size > 0)


def alone_in_bins(
    slopes: Float[Tensor, "example row"], bias: Float[Tensor, " row"], dominance: float
) -> Bool[Tensor, "example row"]:
    """Which example is alone in the difference of neighbouring rows, in either order."""
    found = torch.zeros_like(slopes, dtype=torch.bool)
    for order in (bias.argsort(stable=True), (slopes != 0).sum(0).argsort(stable=True)):
        kept = slopes[:, order]
        difference = kept[:, 1:] - kept[:, :-1]
        # What cancels leaves rounding of the size of what was subtracted.
        noise = 1e-5 * (kept[:, 1:].abs() + kept[:, :-1].abs())
        difference = torch.where(difference.abs() > noise, difference, torch.zeros_like(difference))
        single = alone(difference, dominance)
        both_fire = (kept[:, 1:] != 0).sum(0).minimum((kept[:, :-1] != 0).sum(0)) > 1
        found[:, order[1:]] |= single & both_fire
    return found


def leak(rule, gate, received, local, tolerated, reader, how) -> tuple[Finding, ...]:
    """The hidden linear layer that shows most examples, as a finding."""
    best: Finding | None = None
    linear = [(n, s) for n, s in signals_of(received, local).layers.items() if isinstance(s.module, nn.Linear)]
    for name, signal in linear[:-1]:
        slopes = signal.slopes.flatten(1, -2) if signal.slopes.ndim > 2 else signal.slopes[:, None]
        examples, tokens, rows = slopes.reshape(len(slopes), -1, signal.slopes.shape[-1]).shape
        owner = torch.arange(examples, device=slopes.device).repeat_interleave(tokens)
        flat = slopes.reshape(examples * tokens, rows)
        hit = reader(flat, _bias(received, local, name, flat))
        shown = owner[hit.any(1)].unique().tolist()
        share = len(shown) / examples
        if best is None or share > best.statistic:
            message = f"{len(shown)} of {examples} examples are {how} of '{name}': their inputs to it can be read off."
            best = Finding(
                rule, gate, "leak", share, None, message, ACTION, layer=name,
                rows=tuple(hit.any(0).nonzero()[:, 0].tolist()), examples=tuple(shown), of=examples,
                alarming=share > tolerated,
            )  # fmt: skip
    return () if best is None else (best,)


def _bias(received: Received, local: Local, layer: str, like: Tensor) -> Tensor:
    bias = received.tensors.get(f"{layer}.bias" if layer else "bias")
    return torch.zeros(like.shape[1], device=like.device) if bias is None else bias.to(like)
