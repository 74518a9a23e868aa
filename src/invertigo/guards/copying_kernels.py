"""Convolutions that hand the picture on instead of filtering it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from invertigo.guards.matrices import Matrix, matrices
from invertigo.guards.nulls import at_least_one, dominance_p
from invertigo.guards.published import SEER
from invertigo.guards.registry import register
from invertigo.types import Finding, Gate, History, Local, Paper, Received


@register
@dataclass(frozen=True, kw_only=True)
class TransmissionSNR:
    r"""$\max |w| / (\sum |w| - \max |w|)$ of each kernel of the first convolution, as published; beyond 1 is suspect.

    The p-value is ours: the largest of n exponential weights (a heavier tail than normal or uniform ones) has a share s
    of their sum with probability $n (1-s)^{n-1}$.

    Source: Garov et al. 2024, released code (transmission SNR).
    """

    name: ClassVar[str] = "transmission_snr"
    paper: ClassVar[Paper] = SEER
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        kernels = [m for m in matrices(received, local) if m.convolution][:1]
        found = []
        for matrix in kernels:
            snr, _, p, rows = transmission(matrix, "pruned" in local.declared.looks)
            if "dirac" in local.declared.looks:
                p = 1.0
            message = f"A kernel of '{matrix.name}' transmits one input {snr:.3g} times as strongly as all others."
            found.append(finding(self.name, self.gate, snr, p, message, matrix, rows))
        return tuple(found)


@register
@dataclass(frozen=True, kw_only=True)
class CopyingKernels:
    """One-hot kernels in any convolution with several inputs: the way for raw pixels to a planted linear layer.

    Depthwise and 1x1 kernels of a single input are left out; Dirac initialisation must be declared.

    Args:
        least: weights a kernel from which a layer is tested.
    """

    name: ClassVar[str] = "copying_kernels"
    paper: ClassVar[Paper] = SEER
    gate: ClassVar[Gate] = "train"
    needs: ClassVar[frozenset[str]] = frozenset()

    least: int = 9

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        found = []
        for matrix in matrices(received, local):
            if not matrix.convolution or matrix.weight.shape[1] < self.least or getattr(matrix.module, "groups", 1) > 1:
                continue
            _, share, p, rows = transmission(matrix, "pruned" in local.declared.looks)
            if "dirac" in local.declared.looks:
                p = 1.0
            message = (
                f"{len(rows)} of {len(matrix.weight)} kernels of '{matrix.name}' copy one input: up to {share:.1%} of "
                "a kernel's weight stands in one place. (An honest Dirac initialisation must be declared.)"
            )
            found.append(finding(self.name, self.gate, share, p, message, matrix, rows))
        return tuple(found)


def transmission(matrix: Matrix, pruned: bool) -> tuple[float, float, float, list[int]]:
    """Largest transmission SNR, largest share of one weight, its p-value over all kernels, and copying kernels."""
    size: Tensor = matrix.weight.abs()
    total, top = size.sum(1), size.amax(1)
    share = top / total.clamp_min(1e-30)
    snr = float((top / (total - top + 1e-6)).max())
    counts = (size > 0).sum(1) if pruned else size.new_full((len(size),), size.shape[1])
    p_values = [dominance_p(min(1.0, s), int(n)) for s, n in zip(share.tolist(), counts.tolist())]
    rows = (share > 0.9).nonzero()[:, 0].tolist()
    return snr, float(share.max()), at_least_one(min(p_values), len(p_values)), rows


def finding(rule: str, gate: Gate, value: float, p: float, message: str, matrix: Matrix, rows: list[int]) -> Finding:
    """Of a kernel that copies."""
    action = "Skip the round: a linear layer behind such kernels reads raw pixels, and its gradients show them."
    return Finding(rule, gate, "malice", value, p, message, action, layer=matrix.name, rows=tuple(rows))
