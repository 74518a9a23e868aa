"""Sparse vectors of a subspace: with ReLU, the share of one example in a layer's gradient is one of them."""

from __future__ import annotations

import torch
from torch import Tensor

from invertigo.attacks.exact.factors import CERTAIN, Factors

STEPS = 30
WIDEST, NARROWEST = 1.0, 1e-6
"""Width of the penalty's well at the start and at the end, in units of the vector's root mean square entry."""
SURPLUS = 6
"""Zeros beyond those that any direction can be given, and neurons that must tell it from the next direction."""
TYPICAL = 0.6
"""Share of the most silent example's zeros that every example has; vectors with fewer are mixtures."""
RIDGE = 1e-14
"""Added to normal equations, relative to their largest diagonal entry."""


def sparsest(factors: Factors, starts: Tensor) -> Tensor:
    r"""(row, r) unit directions p near `starts` with many zeros in $U p$, by iteratively reweighted least squares.

    Minimises $\sum_i \log(u_i^2 + \epsilon^2)$ on the sphere while $\epsilon$ shrinks to the rounding.

    Source: Chartrand and Yin (2008), Iteratively reweighted algorithms for compressive sensing (the shrinking well).
    """
    p = starts / starts.norm(dim=1, keepdim=True)
    for step in range(STEPS):
        entries = p @ factors.basis.T
        spread = entries.square().mean(1, keepdim=True).sqrt()
        width = WIDEST * (NARROWEST / WIDEST) ** (step / STEPS) * spread
        width = torch.maximum(width, factors.rounding(p)[:, None])
        weights = width.square() / (entries.square() + width.square())
        p = _solved(factors.normal(weights), p)
        p = p / p.norm(dim=1, keepdim=True)
    return p


def vanishing_on(factors: Factors, off: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """(row, r) directions nearest to zero on the neurons `off` (row, neuron), and (row,) the root mean square there.

    Args:
        anchors: (row,) the neuron at which each direction must not vanish.
    """
    at = factors.basis[anchors]
    p = _solved(factors.normal(off.to(at)), at)
    p = p / p.norm(dim=1, keepdim=True)
    left = ((p @ factors.basis.T) * off).norm(dim=1) / off.sum(1).clamp_min(1).sqrt()
    return p, left


def _solved(normal: Tensor, right: Tensor) -> Tensor:
    """Solve row by row, with a ridge at the edge of rounding."""
    ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).amax(1)
    normal = normal + ridge[:, None, None] * torch.eye(normal.shape[1], dtype=normal.dtype, device=normal.device)
    return torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky_ex(normal).L)[:, :, 0]


def proven(factors: Factors, p: Tensor) -> Tensor | None:
    """The direction p (r,), polished on its own zeros, where these determine it many times over; else None.

    A direction of r numbers can be zero at r - 1 neurons by choice. One that is zero at many more, and that no other
    direction joins there (`SURPLUS` neurons tell it from the next one), is no accident.
    """
    rows = vectors = factors.basis
    for _ in range(2):
        off = (factors.basis @ p).abs() < CERTAIN * factors.rounding(p)
        if int(off.sum()) < factors.rank - 1 + SURPLUS:
            return None
        rows = factors.basis[off]
        _, vectors = torch.linalg.eigh(rows.T @ rows)
        p = vectors[:, 0]
    if factors.rank == 1:
        return p
    second = vectors[:, 1]
    telling = (rows @ second).abs() > CERTAIN * factors.rounding(second)
    return p if int(telling.sum()) >= SURPLUS else None


def zeros(factors: Factors, directions: Tensor) -> Tensor:
    """(row,) how many neurons the directions (row, r) leave silent."""
    return ((directions @ factors.basis.T).abs() < CERTAIN * factors.rounding(directions)[:, None]).sum(1)


def independent(factors: Factors, directions: list[Tensor], tolerance: float = 1e-4) -> Tensor:
    """(row, r) a largest independent choice of `directions`, the sparsest first.

    A difference of two examples' shares is silent at fewer neurons than either, so it comes late and depends on them.
    """
    chosen = torch.zeros(0, factors.rank, dtype=factors.basis.dtype, device=factors.basis.device)
    if not directions:
        return chosen
    listed = torch.stack(directions)
    silent = zeros(factors, listed)
    listed = listed[silent.argsort(descending=True, stable=True)[: int((silent >= TYPICAL * silent.max()).sum())]]
    for p in listed:
        frame = torch.linalg.qr(chosen.T).Q if len(chosen) else chosen.T
        if float((p - frame @ (frame.T @ p)).norm()) > tolerance:
            chosen = torch.cat([chosen, p[None]])
    return chosen
