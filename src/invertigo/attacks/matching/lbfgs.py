"""Limited-memory BFGS for all restarts at once, with a batched backtracking line search."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from invertigo.attacks.matching.pace import Optimum, Pace
from invertigo.attacks.matching.problem import Problem


@dataclass(frozen=True, kw_only=True)
class LBFGS:
    """L-BFGS with Armijo backtracking; each restart keeps its own curvature history and step length.

    Pairs of negative curvature are not stored (cautious update), and a restart whose line search finds no descent
    forgets its history and takes a steepest-descent step next. Source: Nocedal & Wright 2006, Algorithm 7.4–7.5;
    PyTorch's own implementation holds one problem and has no batch dimension.
    """

    iterations: int
    history: int = 50
    learning_rate: float = 1.0
    boxed: bool = False
    tolerance: float = 1e-20
    max_halvings: int = 12

    def minimise(self, problem: Problem, start: Tensor, pace: Pace, generator: torch.Generator) -> Optimum:
        """Run from `start` (restart, unknown) until every restart has converged or stalled."""
        bounds = problem.space.bounds(start)
        x = start
        value, gradient = problem.value_and_gradient(x)
        memory = _Memory(x, self.history)
        stalled = torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)
        done, stopped = 0, "schedule"
        while done < pace.total:
            direction = -memory.apply(gradient)
            moved, new_value, new_gradient = self._search(problem, x, value, gradient, direction, memory.fresh, bounds)
            failed = ~(new_value < value)
            stalled = failed & (memory.fresh | stalled)
            memory.forget(failed)
            memory.store(moved - x, new_gradient - gradient, ~failed)
            x, value, gradient = moved, new_value, new_gradient
            done += 1
            finished = stalled | (value < self.tolerance)
            if pace.asks_to_stop(done, value):
                stopped = "budget"
                break
            if bool(finished.all()):
                stopped = "converged"
                break
        if not torch.isfinite(value).any():
            stopped = "diverged"
        return Optimum(x, value, done, stopped)

    def _search(
        self,
        problem: Problem,
        x: Tensor,
        value: Tensor,
        gradient: Tensor,
        direction: Tensor,
        fresh: Tensor,
        bounds: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Halve the step of each restart until it descends enough (Armijo, constant 1e-4); (x, value, gradient)."""
        slope = (gradient * direction).sum(1)
        # Without curvature information the length of the gradient says nothing: start with a unit-length move.
        unit = 1 / gradient.norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        step = self.learning_rate * torch.where(fresh, unit, torch.ones_like(unit))
        trial = self._move(x, step, direction, bounds)
        # Most unit steps are accepted, so the derivative is computed along with the first trial.
        trial_value, trial_gradient = problem.value_and_gradient(trial)
        waiting = ~(trial_value <= value + 1e-4 * step * slope)
        if not bool(waiting.any()):
            return trial, trial_value, trial_gradient
        for _ in range(self.max_halvings):
            step = torch.where(waiting, step / 2, step)
            trial = self._move(x, step, direction, bounds)
            waiting = waiting & ~(problem.value(trial) <= value + 1e-4 * step * slope)
            if not bool(waiting.any()):
                break
        moved = torch.where(waiting[:, None], x, trial)
        return moved, *problem.value_and_gradient(moved)

    def _move(self, x: Tensor, step: Tensor, direction: Tensor, bounds: tuple[Tensor, Tensor]) -> Tensor:
        moved = x + step[:, None] * direction
        return moved.clamp(*bounds) if self.boxed else moved


class _Memory:
    """Curvature pairs of each restart, newest last; unused places hold zeros and drop out of the recursion."""

    def __init__(self, like: Tensor, history: int) -> None:
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.history = history
        self.scale = like.new_ones(like.shape[0])
        self.fresh = torch.ones(like.shape[0], dtype=torch.bool, device=like.device)

    def apply(self, gradient: Tensor) -> Tensor:
        """The two-loop recursion: inverse-Hessian estimate times gradient."""
        q, alphas = gradient, []
        for s, y, inverse in reversed(self.pairs):
            alpha = inverse * (s * q).sum(1)
            q = q - alpha[:, None] * y
            alphas.append(alpha)
        q = self.scale[:, None] * q
        for (s, y, inverse), alpha in zip(self.pairs, reversed(alphas)):
            q = q + (alpha - inverse * (y * q).sum(1))[:, None] * s
        return q

    def store(self, s: Tensor, y: Tensor, accepted: Tensor) -> None:
        """Keep the pair for those restarts where it has positive curvature."""
        curvature, square = (s * y).sum(1), (y * y).sum(1)
        usable = accepted & (curvature > 1e-10 * s.norm(dim=1) * y.norm(dim=1))
        inverse = torch.where(usable, 1 / curvature, torch.zeros_like(curvature))
        self.scale = torch.where(usable, curvature / square, self.scale)
        self.fresh = self.fresh & ~usable
        self.pairs = [*self.pairs, (s, y, inverse)][-self.history :]

    def forget(self, restarts: Tensor) -> None:
        """Drop all pairs of these restarts."""
        if not bool(restarts.any()):
            return
        keep = (~restarts).to(self.scale)
        self.pairs = [(s, y, inverse * keep) for s, y, inverse in self.pairs]
        self.scale = torch.where(restarts, torch.ones_like(self.scale), self.scale)
        self.fresh = self.fresh | restarts
