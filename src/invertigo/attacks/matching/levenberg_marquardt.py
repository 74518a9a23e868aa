"""Damped Gauss–Newton: Levenberg–Marquardt whose linear systems are solved by conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invertigo.attacks.matching.pace import Optimum, Pace
from invertigo.attacks.matching.problem import Problem


@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt:
    r"""Minimise $\lVert g(x)-g^*\rVert^2$ by steps $(J^\top J + \lambda\tau I)\,d = -J^\top (g(x)-g^*)$.

    $J = \partial g/\partial x$ is never formed: $Jv$ and $J^\top u$ come from two derivative graphs that are built
    once a round and reused by every conjugate-gradient step. $\tau$ is the mean of the diagonal of $J^\top J$ at
    the start, so that `damping` does not depend on the scale of the update. A step that lowers the residual is
    taken and the damping falls by `success`; otherwise it grows by `failure`. Where the residual is small the
    convergence is quadratic, which first-order matching never is. With noise of known size on the update, it ends as
    soon as the residual is what the noise explains (Morozov's discrepancy principle): beyond, it would fit the noise.

    Source: Levenberg 1944, Marquardt 1963; conjugate gradients as in Nocedal & Wright 2006, §7.1.
    """

    iterations: int = 60
    damping: float = 1e-2
    success: float = 0.3
    failure: float = 5.0
    cg_steps: int = 1000
    cg_tolerance: float = 1e-4
    tolerance: float = 1e-20
    max_damping: float = 1e8
    patience: int = 8

    def minimise(self, problem: Problem, start: Tensor, pace: Pace, generator: torch.Generator) -> Optimum:
        """Run from `start` (restart, unknown); ends when each restart's squared relative residual is tiny or stuck."""
        size = (problem.target**2).sum()
        enough = max(self.tolerance, problem.noise_share)
        x = start.detach()
        damping = x.new_full((x.shape[0],), self.damping)
        system = _System(problem, x)
        scale = system.mean_diagonal(generator).clamp_min(torch.finfo(x.dtype).tiny)
        done, stopped = 0, "schedule"
        history = [system.square / size]
        while done < pace.total:
            step = system.solve(damping * scale, self.cg_steps, self.cg_tolerance, pace)
            trial = _System(problem, x + step)
            better = trial.square < system.square
            damping = torch.where(better, damping * self.success, damping * self.failure)
            if bool(better.all()):
                x, system = x + step, trial
            elif bool(better.any()):
                x = torch.where(better[:, None], x + step, x)
                system = _System(problem, x)
            done += 1
            relative = system.square / size
            if pace.asks_to_stop(done, relative):
                stopped = "budget"
                break
            history.append(relative)
            if bool(((relative < enough) | (damping > self.max_damping) | self._stalled(history)).all()):
                stopped = "converged"
                break
        if not torch.isfinite(system.square).any():
            stopped = "diverged"
        return Optimum(x, system.square / size, done, stopped)

    def _stalled(self, history: list[Tensor]) -> Tensor:
        """Less than a tenth was gained in the last `patience` rounds."""
        if len(history) <= self.patience:
            return torch.zeros_like(history[-1], dtype=torch.bool)
        return history[-1] > 0.9 * history[-1 - self.patience]


class _System:
    """The linearisation of the simulated update around one point, ready for products with J and its transpose."""

    def __init__(self, problem: Problem, x: Tensor) -> None:
        self.x = x.detach().requires_grad_()
        self.update = problem.row(self.x)
        self.residual = self.update.detach() - problem.target
        self.square = (self.residual**2).sum(1)
        self._dummy: Tensor | None = None
        self._pullback: Tensor | None = None

    def transposed(self, u: Tensor) -> Tensor:
        """J^T u, (restart, unknown)."""
        return torch.autograd.grad(self.update, self.x, u, retain_graph=True)[0]

    def forward(self, v: Tensor) -> Tensor:
        """J v, (restart, entry): the derivative along v of the linear map u -> J^T u."""
        if self._pullback is None:
            self._dummy = torch.zeros_like(self.update, requires_grad=True)
            (self._pullback,) = torch.autograd.grad(self.update, self.x, self._dummy, create_graph=True)
        assert self._dummy is not None
        return torch.autograd.grad(self._pullback, self._dummy, v, retain_graph=True)[0]

    def mean_diagonal(self, generator: torch.Generator) -> Tensor:
        """Hutchinson estimate of the mean diagonal of J^T J, (restart,)."""
        draw = torch.randint(0, 2, self.x.shape, generator=generator, device=generator.device)
        signs = (2 * draw - 1).to(self.x)
        return (self.forward(signs) ** 2).sum(1) / self.x.shape[1]

    def solve(self, shift: Tensor, steps: int, tolerance: float, pace: Pace) -> Tensor:
        """d with (J^T J + shift I) d = -J^T r, by conjugate gradients; a truncated solve still descends."""
        return conjugate_gradients(
            lambda v: self.transposed(self.forward(v)) + shift[:, None] * v,
            -self.transposed(self.residual),
            steps,
            tolerance,
            lambda: pace.late,
        )


def softest_direction(problem: Problem, x: Tensor, generator: torch.Generator, steps: int = 300) -> float:
    """Curvature of the softest direction found at one candidate `x` (1, unknown), relative to the mean curvature.

    Two rounds of inverse iteration from a random direction; an upper bound of the smallest eigenvalue of J^T J
    over its mean. Far below rounding, it says that the update does not determine the data.
    """
    system = _System(problem, x)
    mean = system.mean_diagonal(generator)
    v = torch.randn(x.shape, generator=generator, device=generator.device, dtype=x.dtype).to(x.device)
    for _ in range(2):
        v = conjugate_gradients(
            lambda d: system.transposed(system.forward(d)) + 1e-15 * mean[:, None] * d, v / v.norm(), steps, 1e-8
        )
    v = v / v.norm()
    return ((system.forward(v) ** 2).sum() / mean.sum()).item()


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    right: Tensor,
    steps: int,
    tolerance: float,
    late: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Solve A d = b row by row for symmetric positive definite A.

    Stops at a relative residual of `tolerance`, after `steps`, or when `late()`, with the best solution so far.
    """
    d, r, p = torch.zeros_like(right), right, right
    square = (r * r).sum(1)
    goal = tolerance**2 * square
    for _ in range(steps):
        if bool((square <= goal).all()) or late():
            break
        q = product(p)
        curvature = (p * q).sum(1)
        alpha = torch.where(curvature > 0, square / curvature, torch.zeros_like(square))
        d, r = d + alpha[:, None] * p, r - alpha[:, None] * q
        fresh = (r * r).sum(1)
        p = r + torch.where(square > 0, fresh / square, torch.zeros_like(square))[:, None] * p
        square = fresh
    return d
