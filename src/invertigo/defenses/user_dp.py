"""Differential privacy for a client's whole update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import Tensor

from invertigo.defenses.accounting import Accountant, check_budget, epsilon
from invertigo.defenses.clipping import check_norm, clipped
from invertigo.defenses.entries import Tensors, count, length
from invertigo.defenses.gaussian_noise import GaussianNoise, noisy_view, remaining_std
from invertigo.defenses.registry import register
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step


@register
@dataclass(frozen=True, kw_only=True)
class UserDP(Defense):
    r"""$u \min(1, C/\lVert u\rVert_2) + \mathcal N(0, (z S)^2 I)$, added by the client itself before it sends.

    $S$ is how far two neighbouring updates can lie apart. Where anybody's data might stand behind an update (one client
    in place of another, "replace_one"), both lie in a ball of radius C and $S = 2C$; where the alternative is that the
    client sends nothing ("add_remove"), $S = C$. A sensitivity below that makes the epsilon untrue and is refused.
    `epsilon` at `delta` composes `rounds` releases of the same client, with no gain from sampling: whoever receives the
    update knows whose it is.

    Args:
        clip: C > 0.
        noise_multiplier: z >= 0; at 0 there is no bound, and no epsilon is reported.
        neighbours: what an adversary must not be able to tell apart.
        sensitivity: S, if it is to be larger than the neighbours ask for.
        rounds: how many rounds the client takes part in.
        delta: in (0, 1).
        accountant: "rdp" or "prv".

    Source: McMahan et al. (2018), whose server adds the noise after averaging; that protects clients from everybody but
    the server, and this adversary is the server, so the client adds it here.
    """

    name: ClassVar[str] = "user_dp"
    paper: ClassVar[Paper] = Paper(
        "mcmahan2018learning",
        "Learning Differentially Private Recurrent Language Models",
        "McMahan, H. Brendan and Ramage, Daniel and Talwar, Kunal and Zhang, Li",
        2018,
        "International Conference on Learning Representations",
        "1710.06963",
    )
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "noise_multiplier"
    strengths: ClassVar[tuple[float, ...]] = (0.001, 0.01, 0.1, 1.0)

    clip: float = 1.0
    noise_multiplier: float = 1.0
    neighbours: Literal["replace_one", "add_remove"] = "replace_one"
    sensitivity: float | None = None
    rounds: int = 1
    delta: float = 1e-5
    accountant: Accountant = "rdp"

    def __post_init__(self) -> None:
        check_norm(self.clip, "clip")
        check_budget(self.noise_multiplier, self.delta, self.rounds, self.accountant)
        if self.neighbours not in ("replace_one", "add_remove"):
            raise InvalidValueError(f"neighbours is {self.neighbours!r}; it must be 'replace_one' or 'add_remove'.")
        if self.sensitivity is not None and self.sensitivity < self._least_sensitivity:
            raise InvalidValueError(
                f"sensitivity is {self.sensitivity:g}, but updates clipped to {self.clip:g} can lie "
                f"{self._least_sensitivity:g} apart under '{self.neighbours}': the noise would be too small for the "
                f"epsilon that is reported. Leave sensitivity out, or give at least {self._least_sensitivity:g}"
                + (" (twice the clip: one update in place of its opposite)." if self._twice == 2 else ".")
            )

    @property
    def _twice(self) -> int:
        return 2 if self.neighbours == "replace_one" else 1

    @property
    def _least_sensitivity(self) -> float:
        return self._twice * self.clip

    @property
    def noise_std(self) -> float:
        """z S, the noise's standard deviation on each entry."""
        return self.noise_multiplier * (self.sensitivity or self._least_sensitivity)

    def on_update(self, update: Tensors, step: Step) -> dict[str, Tensor]:
        """The clipped and noised update, with the budget written down."""
        bounded = {k: t[0] for k, t in clipped({k: t[None] for k, t in update.items()}, self.clip).items()}
        step.facts["clipped"] = float(length(update) > self.clip)
        step.facts["noise_to_signal"] = self.noise_std * count(update) ** 0.5 / max(length(bounded), 1e-30)
        if self.noise_multiplier > 0:
            multiplier = self.noise_std / self._least_sensitivity
            step.facts["delta"] = self.delta
            step.facts["epsilon"] = epsilon(
                multiplier, sample_rate=1.0, steps=max(self.rounds, step.round + 1), delta=self.delta,
                accountant=self.accountant,
            )  # fmt: skip
        return GaussianNoise(std=self.noise_std).on_update(bounded, step)

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The mean over releases, the same clip on the simulated update, and the noise's scale."""
        view = noisy_view(observation, remaining_std(observation, self.noise_std, False))
        return replace(
            view,
            knows=f"{view.knows} Simulated updates are clipped to {self.clip:g} as the client's are.",
            surrogate=lambda update: clipped(update, self.clip),
        )
