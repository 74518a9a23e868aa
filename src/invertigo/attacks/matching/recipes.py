"""Published gradient-matching attacks as settings of the one engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from invertigo.attacks.matching.engine import Labels, Matching
from invertigo.attacks.matching.first_order import Adam
from invertigo.attacks.matching.lbfgs import LBFGS
from invertigo.attacks.matching.objectives import Cosine, SquaredL2
from invertigo.attacks.matching.priors import BatchNormStatistics, GroupConsistency, ImageNorm, TotalVariation
from invertigo.attacks.registry import register
from invertigo.types import Observation, Paper, Progress, Reconstruction, Requirement, check_requirements

IMAGES = frozenset({"images"})


@register
@dataclass(frozen=True, kw_only=True)
class DLG:
    """Match gradients in squared distance by L-BFGS, images and soft labels together.

    Source: Zhu et al. 2019. The paper's 300 calls of L-BFGS make up to 20 iterations each, hence 6000;
    a line search replaces its unit steps, which diverge on many starts. Labels returned are the optimised ones.
    """

    name: ClassVar[str] = "dlg"
    paper: ClassVar[Paper] = Paper(
        "zhu2019deep",
        "Deep Leakage from Gradients",
        "Zhu, Ligeng and Liu, Zhijian and Han, Song",
        2019,
        "Advances in Neural Information Processing Systems",
        "1906.08935",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE})
    domains: ClassVar[frozenset[str]] = IMAGES
    exact: ClassVar[bool] = False

    iterations: int = 6000
    restarts: int = 1
    history: int = 100
    seconds: float | None = None

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        check_requirements(self, observation)
        return _by_lbfgs(self, "joint").run(observation, generator=generator, progress=progress)


@register
@dataclass(frozen=True, kw_only=True)
class IDLG:
    """DLG with the label read off the last layer first, so that only images are optimised.

    Source: Zhao et al. 2020; for batches the labels are counted rather than read (`attacks.labels`).
    """

    name: ClassVar[str] = "idlg"
    paper: ClassVar[Paper] = Paper(
        "zhao2020idlg",
        "iDLG: Improved Deep Leakage from Gradients",
        "Zhao, Bo and Mopuri, Konda Reddy and Bilen, Hakan",
        2020,
        "arXiv preprint",
        "2001.02610",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE})
    domains: ClassVar[frozenset[str]] = IMAGES
    exact: ClassVar[bool] = False

    iterations: int = 6000
    restarts: int = 1
    history: int = 100
    seconds: float | None = None

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        check_requirements(self, observation)
        return _by_lbfgs(self, "infer").run(observation, generator=generator, progress=progress)


def _by_lbfgs(attack: DLG | IDLG, labels: Labels) -> Matching:
    return Matching(
        name=attack.name,
        objective=SquaredL2(),
        optimiser=LBFGS(iterations=attack.iterations, history=attack.history),
        labels=labels,
        restarts=attack.restarts,
        seconds=attack.seconds,
        plan=False,
    )


@register
@dataclass(frozen=True, kw_only=True)
class InvertingGradients:
    """Match the direction of the gradient with a total-variation prior, by Adam on the signs of its own gradient.

    Source: Geiping et al. 2020 and its public configuration (cosine distance, Adam 0.1, step decay, signed
    gradients, box, anisotropic total variation 0.1).
    """

    name: ClassVar[str] = "inverting_gradients"
    paper: ClassVar[Paper] = Paper(
        "geiping2020inverting",
        "Inverting Gradients - How easy is it to break privacy in federated learning?",
        "Geiping, Jonas and Bauermeister, Hartmut and Dröge, Hannah and Moeller, Michael",
        2020,
        "Advances in Neural Information Processing Systems",
        "2003.14053",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE})
    domains: ClassVar[frozenset[str]] = IMAGES
    exact: ClassVar[bool] = False

    iterations: int = 4800
    restarts: int = 1
    learning_rate: float = 0.1
    total_variation: float = 0.1
    sign: Literal["hard", "soft"] | None = "hard"
    patience: int | None = None
    seconds: float | None = None
    prior_only: bool = False
    compile: bool = False

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        check_requirements(self, observation)
        return Matching(
            name=self.name,
            objective=Cosine(),
            optimiser=Adam(
                iterations=self.iterations, learning_rate=self.learning_rate, sign=self.sign, patience=self.patience
            ),
            priors=(TotalVariation(self.total_variation),),
            restarts=self.restarts,
            seconds=self.seconds,
            prior_only=self.prior_only,
            compile=self.compile,
        ).run(observation, generator=generator, progress=progress)


@register
@dataclass(frozen=True, kw_only=True)
class SeeThroughGradients:
    """GradInversion: squared gradient distance with batch statistics, image priors and agreement among restarts.

    Source: Yin et al. 2021. Weights other than `group_consistency` are the paper's as the public re-implementation
    in `breaching` configures them; that one leaves the group term out, so its weight and the number of restarts are
    our choice. `batch_statistics=0` leaves that prior out, and with it what the adversary must know.
    """

    name: ClassVar[str] = "see_through_gradients"
    paper: ClassVar[Paper] = Paper(
        "yin2021see",
        "See through Gradients: Image Batch Recovery via GradInversion",
        "Yin, Hongxu and Mallya, Arun and Vahdat, Arash and Alvarez, Jose M. and Kautz, Jan and Molchanov, Pavlo",
        2021,
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition",
        "2104.07586",
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE, Requirement.BATCH_STATISTICS})
    domains: ClassVar[frozenset[str]] = IMAGES
    exact: ClassVar[bool] = False

    iterations: int = 20_000
    restarts: int = 4
    learning_rate: float = 0.1
    gradient_scale: float = 5e-5
    total_variation: float = 1e-4
    image_norm: float = 1e-6
    batch_statistics: float = 0.1
    first_layer_factor: float = 10.0
    group_consistency: float = 0.01
    langevin: float = 0.01
    seconds: float | None = None
    prior_only: bool = False

    def __post_init__(self) -> None:
        if not self.batch_statistics:  # as in evaluations of clients in inference mode
            object.__setattr__(self, "requires", self.requires - {Requirement.BATCH_STATISTICS})

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`."""
        check_requirements(self, observation)
        return Matching(
            name=self.name,
            objective=SquaredL2(self.gradient_scale),
            optimiser=Adam(
                iterations=self.iterations,
                learning_rate=self.learning_rate,
                schedule="cosine",
                warmup=min(50, self.iterations // 2),
                langevin=self.langevin,
            ),
            priors=(
                TotalVariation(self.total_variation),
                ImageNorm(self.image_norm),
                BatchNormStatistics(self.batch_statistics, self.first_layer_factor),
                GroupConsistency(self.group_consistency),
            ),
            restarts=self.restarts,
            seconds=self.seconds,
            prior_only=self.prior_only,
        ).run(observation, generator=generator, progress=progress)
