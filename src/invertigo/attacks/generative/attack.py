"""The attack: fit a decoder to public images, search its latents, then its features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.generative.search import Drawing, StayNear, inside
from invertigo.attacks.matching.engine import Matching, threads_for
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.objectives import Cosine
from invertigo.attacks.matching.pace import Pace
from invertigo.attacks.matching.priors import ImageNorm
from invertigo.attacks.matching.problem import Problem
from invertigo.attacks.registry import register
from invertigo.domains import Images
from invertigo.federation.functional import simulating
from invertigo.models import memory
from invertigo.models.autoencoder import Autoencoder, fit_autoencoder
from invertigo.types import (
    InvalidValueError,
    Observation,
    Paper,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    Tick,
    check_requirements,
)

SHARES = (0.5, 0.25, 0.25)
"""Parts of the schedule for the latents and for each stage of features."""


@dataclass(frozen=True)
class Found:
    """Where the search stands: what is drawn from `unknown` (1, unknowns) fits the update to `objective`."""

    drawing: Drawing
    problem: Problem
    unknown: Tensor
    objective: float
    stopped: str

    @property
    def ended(self) -> bool:
        """Time is over, or somebody asked to stop."""
        return self.stopped in ("budget", "diverged")


@register
@dataclass(frozen=True, kw_only=True)
class GenerativePrior:
    r"""Match the direction of the gradient over $x = D(z)$, then over the feature maps inside the decoder $D$.

    $D$ is the decoder of an autoencoder fitted to the public images, once a process for the same ones. `restarts`
    latents start standard normal and are drawn to 0 by `latent_norm`; the best goes on to the features of the decoder's
    later stages, where each stage starts from what the one before led to and is held near it by `feature_norm`. The
    stage whose picture explains the update best is returned, which never is worse than the latent search alone.

    Source: after Fang et al. 2023 (GIFD), and Jeon et al. 2021 (GIAS) for the latent search. They search BigGAN and
    StyleGAN2, and GIFD bounds the features by an l1 ball; a small decoder that anybody can train, and the squared
    distance in place of the ball, are ours.
    """

    name: ClassVar[str] = "generative_prior"
    paper: ClassVar[Paper] = Paper(
        "fang2023gifd",
        "GIFD: A Generative Gradient Inversion Method with Feature Domain Optimization",
        "Fang, Hao and Chen, Bin and Wang, Xuan and Wang, Zhi and Xia, Shu-Tao",
        2023,
        "IEEE/CVF International Conference on Computer Vision",
        "2308.04699",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE, Requirement.PUBLIC_DATA})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = False

    iterations: int = 1200
    restarts: int = 4
    learning_rate: float = 0.05
    latent_norm: float = 1e-3
    feature_norm: float = 1e-2
    latent: int = 64
    width: int = 16
    epochs: int = 30
    seconds: float | None = None
    prior_only: bool = False

    def __post_init__(self) -> None:
        for name in ("iterations", "restarts", "latent", "width", "epochs"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} is {getattr(self, name)}; it must be a positive whole number.")

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        check_requirements(self, observation)
        domain, prior = observation.task.domain, self._prior(observation, generator)
        if not isinstance(domain, Images):
            raise RequirementError(f"Attack '{self.name}' draws images, not {domain.name}.")
        matching = self._matching()
        problem, inferred = matching.problem(observation)
        whole = Pace(self.iterations)
        with simulating(observation.task.model, observation.local.mode), threads_for(problem):
            best = last = self._latents(matching, inside(problem, Drawing(prior, domain)), Drawing(prior, domain),
                                        generator, progress)  # fmt: skip
            for stage in (1, 2):
                if last.ended or self.prior_only:
                    break
                last = self._features(problem, last, stage, generator, progress)
                best = min(best, last, key=lambda found: found.objective)
        fields = best.problem.fields(best.unknown)
        with torch.no_grad():
            drawn = best.drawing(fields[domain.inputs][0])
        labels = problem.labels if problem.labels is not None else fields[domain.target][0].argmax(-1)
        return Reconstruction(
            fields={domain.inputs: drawn.detach(), domain.target: labels.detach()},
            attack=self.name,
            objective=best.objective,
            stopped=last.stopped,
            seconds=whole.elapsed,
            labels_inferred=inferred,
            notes=(f"drawn from stage {best.drawing.stage} of the decoder",),
        )

    def _prior(self, observation: Observation, generator: torch.Generator) -> Autoencoder:
        """An autoencoder of the public images, in inference mode."""
        domain, public = observation.task.domain, observation.knowledge.public
        if public is None or not isinstance(domain, Images):
            raise RequirementError(f"Attack '{self.name}' needs public images to learn what images look like.")
        pixels = domain.to_unit(public[domain.inputs].to(next(iter(observation.parameters.values()))))

        def fit() -> Autoencoder:
            return fit_autoencoder(
                pixels, latent=self.latent, width=self.width, epochs=self.epochs, generator=generator
            )

        settings = f"prior {self.latent} {self.width} {self.epochs}"
        return memory.once(fit, settings, [], {"pixels": pixels}, generator)

    def _matching(self) -> Matching:
        return Matching(
            name=self.name,
            objective=Cosine(),
            optimiser=Adam(iterations=self.iterations),
            restarts=self.restarts,
            prior_only=self.prior_only,
        )

    def _latents(
        self, matching: Matching, problem: Problem, drawing: Drawing, generator: torch.Generator,
        progress: Progress | None,
    ) -> Found:  # fmt: skip
        """The best of several searches over latents; an unknown without bounds starts standard normal."""
        searched = replace(problem, priors=(ImageNorm(self.latent_norm),))
        return self._searched(searched, matching.starting_point(searched, generator), drawing, generator, progress)

    def _features(
        self, problem: Problem, last: Found, stage: int, generator: torch.Generator, progress: Progress | None
    ) -> Found:
        """Go on from where the stage before stands, one stage nearer to the pixels."""
        inputs = problem.observation.task.domain.inputs
        drawing, named = replace(last.drawing, stage=stage), last.problem.space.unpack(last.unknown)
        with torch.no_grad():
            start = _advanced(last.drawing, named[inputs])
        searched = replace(inside(problem, drawing), priors=(StayNear(self.feature_norm, start),))
        return self._searched(searched, searched.space.pack({**named, inputs: start}), drawing, generator, progress)

    def _searched(
        self, problem: Problem, start: Tensor, drawing: Drawing, generator: torch.Generator, progress: Progress | None
    ) -> Found:
        share, before = SHARES[drawing.stage], sum(SHARES[: drawing.stage])
        iterations = max(1, round(share * self.iterations))
        optimiser = Adam(iterations=iterations, learning_rate=self.learning_rate, schedule="cosine", boxed=False)
        seconds = None if self.seconds is None else share * self.seconds
        watched = None if progress is None else _within(progress, self.iterations, round(before * self.iterations))
        optimum = optimiser.minimise(problem, start, Pace(iterations, watched, seconds), generator)
        fits = replace(problem, priors=()).value(optimum.best)
        winner = int(torch.where(fits.isfinite(), fits, torch.inf).argmin())
        return Found(drawing, problem, optimum.best[winner : winner + 1], fits[winner].item(), optimum.stopped)


def _advanced(drawing: Drawing, unknown: Tensor) -> Tensor:
    """The input of the stage after `drawing.stage` that its unknowns (1, image, *shape) lead to."""
    if drawing.stage == 0:
        return replace(drawing, stage=1).features(unknown)
    return drawing.prior.decoder.run(drawing.stage, unknown[0])[None]


def _within(progress: Progress, total: int, before: int) -> Callable[[Tick], bool | None]:
    """Progress of one stage as progress of the whole schedule."""
    return lambda tick: progress(Tick(before + tick.done, total, tick.objective, tick.seconds, tick.seconds_left))
