"""Adam with signed gradients, step decay, cosine and warm-up, for all restarts at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from invertigo.attacks.matching.pace import Optimum, Pace
from invertigo.attacks.matching.problem import Problem

IMPROVEMENT = 1e-4
"""Relative gain in the objective under which an iteration does not count as progress."""


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (AdamW with `weight_decay`), the optimiser of most gradient-inversion papers.

    `sign`: "hard" steps on the sign of the gradient, "soft" on its hyperbolic tangent after scaling to unit mean.
    `schedule`: "step" multiplies the rate by 0.1 at 3/8, 5/8 and 7/8 of the run (Geiping et al. 2020); "cosine"
    anneals to zero. `boxed` projects onto the range of the data after each step. `langevin` adds normal noise
    to each gradient (Yin et al. 2021); it is a fraction of the gradient's root mean square, since noise of a fixed size
    drowns the gradient of a small network. The run ends early when the objective
    falls under `tolerance`, or has not improved by a ten-thousandth for `patience` iterations.
    """

    iterations: int
    learning_rate: float = 0.1
    sign: Literal["hard", "soft"] | None = None
    schedule: Literal["constant", "step", "cosine"] = "step"
    warmup: int = 0
    boxed: bool = True
    weight_decay: float = 0.0
    langevin: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    tolerance: float = 1e-14
    patience: int | None = None

    def minimise(self, problem: Problem, start: Tensor, pace: Pace, generator: torch.Generator) -> Optimum:
        """Run from `start` (restart, unknown); the best point of each restart is kept with its own objective."""
        low, high = problem.space.bounds(start)
        x, first, second = start, torch.zeros_like(start), torch.zeros_like(start)
        best, values = start, start.new_full((start.shape[0],), math.inf)
        improved_at, done, stopped = 0, 0, "schedule"
        while done < pace.total:
            value, gradient = problem.value_and_gradient(x)
            better, clearly = value < values, value < (1 - IMPROVEMENT) * values
            best, values = torch.where(better[:, None], x, best), torch.where(better, value, values)
            done += 1
            if self.patience is not None and bool(clearly.any()):
                improved_at = done
            converged = done % 50 == 0 and self._converged(values, done - improved_at)
            if pace.asks_to_stop(done, values) or converged:
                stopped = "converged" if converged else "budget"
                break
            gradient = self._direction(gradient, generator)
            first = self.betas[0] * first + (1 - self.betas[0]) * gradient
            second = self.betas[1] * second + (1 - self.betas[1]) * gradient**2
            rate = self.learning_rate * self.factor(done - 1, pace.total)
            x = x * (1 - rate * self.weight_decay) - rate * self._step(first, second, done)
            x = x.clamp(low, high) if self.boxed else x
        if not torch.isfinite(values).any():
            return Optimum(start, values, done, "diverged")
        return Optimum(best, values, done, stopped)

    def factor(self, done: int, total: int) -> float:
        """What the learning rate is multiplied by at iteration `done` of `total`."""
        if done < self.warmup:
            return (done + 1) / self.warmup
        if self.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (done - self.warmup) / max(total - self.warmup, 1)))
        if self.schedule == "step":
            return 0.1 ** sum(done >= int(total * eighths / 8) for eighths in (3, 5, 7))
        return 1.0

    def _converged(self, values: Tensor, waited: int) -> bool:
        stalled = self.patience is not None and waited > self.patience
        return stalled or bool((values < self.tolerance).all())

    def _direction(self, gradient: Tensor, generator: torch.Generator) -> Tensor:
        if self.langevin:
            noise = torch.randn(gradient.shape, generator=generator, device=generator.device, dtype=gradient.dtype)
            scale = gradient.square().mean(1, keepdim=True).sqrt()
            gradient = gradient + self.langevin * scale * noise.to(gradient.device)
        if self.sign == "hard":
            return gradient.sign()
        if self.sign == "soft":
            return (gradient / gradient.abs().mean(1, keepdim=True).clamp_min(torch.finfo(gradient.dtype).tiny)).tanh()
        return gradient

    def _step(self, first: Tensor, second: Tensor, count: int) -> Tensor:
        first, second = first / (1 - self.betas[0] ** count), second / (1 - self.betas[1] ** count)
        return first / (second.sqrt() + 1e-8)
