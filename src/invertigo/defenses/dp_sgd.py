"""Differentially private SGD with Opacus' accounting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from invertigo.defenses.accounting import Accountant, check_budget, epsilon
from invertigo.defenses.clipping import check_norm
from invertigo.defenses.entries import count, length
from invertigo.defenses.gaussian_noise import standard_normal
from invertigo.defenses.local_noise import accumulated
from invertigo.defenses.per_example_clip import ABADI, clip_aware_view, clipped_sum
from invertigo.defenses.registry import register
from invertigo.defenses.releases import mean_release, released
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, InvalidValueError, Observation, Paper, Step

Tensors = Mapping[str, Tensor]


@register
@dataclass(frozen=True, kw_only=True)
class DPSGD(Defense):
    r"""$\frac{1}{B}\big[\sum_i g_i \min(1, C/\lVert g_i\rVert_2) + \mathcal N(0, \sigma^2 C^2 I)\big]$ in every step.

    The trace reports Opacus' `epsilon` at `delta` for `steps` noisy steps (or as many as were taken, if more), each on
    a Poisson sample of the client's records at `sample_rate`; neighbours differ by one record added or removed. An
    audited batch is given rather than sampled: its epsilon counts as if it had been. Against inversion it is the single
    release that counts, so `noise_to_signal`, the noise's length over the clipped gradient's, stands beside it.

    Args:
        clip: C > 0.
        noise_multiplier: sigma >= 0; at 0 there is no bound, and no epsilon is reported.
        delta: in (0, 1), below one over the number of records.
        steps: how many noisy steps the whole training takes.
        sample_rate: share of the client's records in one step, in (0, 1].
        accountant: "rdp" or "prv" (tighter, slower).

    Source: Abadi et al. (2016), Algorithm 1; defaults 1.1 and 1e-5 are customary. Noise comes from a generator that the
    operating system seeds; it is not cryptographic.
    """

    name: ClassVar[str] = "dp_sgd"
    paper: ClassVar[Paper] = ABADI
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "noise_multiplier"
    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.1, 0.5, 1.1, 4.0)

    clip: float = 1.0
    noise_multiplier: float = 1.1
    delta: float = 1e-5
    steps: int = 1
    sample_rate: float = 1.0
    accountant: Accountant = "rdp"

    def __post_init__(self) -> None:
        check_norm(self.clip, "clip")
        check_budget(self.noise_multiplier, self.delta, self.steps, self.accountant)
        if not 0 < self.sample_rate <= 1:
            raise InvalidValueError(
                f"sample_rate is {self.sample_rate}; it is the share of the client's records that one step reads and "
                "lies in (0, 1]. Take the batch size over the number of records; 1 claims no gain from sampling."
            )

    def on_gradient(self, gradient: Tensors, step: Step) -> dict[str, Tensor]:
        """The clipped and noised gradient of this step."""
        total, factor = clipped_sum(gradient, step, self.clip)
        std = self.noise_multiplier * self.clip
        step.facts["noise_std"] = std * factor
        step.facts["noise_to_signal"] = std * math.sqrt(count(total)) / max(length(total), 1e-30)
        return {name: (t + std * standard_normal(t, step.generator)) * factor for name, t in total.items()}

    def on_update(self, update: Tensors, step: Step) -> Tensors:
        """The update as it is, with the budget written down."""
        if self.noise_multiplier > 0:
            taken = (step.round + 1) * (step.number + 1)
            step.facts["delta"] = self.delta
            step.facts["epsilon"] = epsilon(
                self.noise_multiplier, sample_rate=self.sample_rate, steps=max(self.steps, taken), delta=self.delta,
                accountant=self.accountant,
            )  # fmt: skip
        return update

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The mean over releases, with the clip simulated for one example and the noise's scale known."""
        std = self.noise_multiplier * self.clip
        left = accumulated(observation, lambda size: std / size) / math.sqrt(len(released(observation)))
        view = clip_aware_view(observation, self.clip)
        return replace(
            view,
            knows=f"{view.knows} Noise of standard deviation {left:.3g} is left in the mean over releases.",
            update=mean_release(observation),
            noise_std=dict.fromkeys(observation.parameters, left),
        )
