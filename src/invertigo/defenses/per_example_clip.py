"""Clipping of what each example contributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.defenses.clipping import check_norm, clipped, combined
from invertigo.defenses.entries import Tensors
from invertigo.defenses.registry import register
from invertigo.types import ANY_DOMAIN, AdversaryView, Defense, Observation, Paper, Step

ABADI = Paper(
    "abadi2016deep",
    "Deep Learning with Differential Privacy",
    "Abadi, Mart{\\'i}n and Chu, Andy and Goodfellow, Ian and McMahan, H. Brendan and Mironov, Ilya and "
    "Talwar, Kunal and Zhang, Li",
    2016,
    "ACM SIGSAC Conference on Computer and Communications Security",
    "1607.00133",
)


@register
@dataclass(frozen=True, kw_only=True)
class PerExampleClip(Defense):
    r"""$\frac{1}{B}\sum_i g_i \min(1, C / \lVert g_i \rVert_2)$ in every local step: DP-SGD without its noise.

    Bounds how much one example can weigh, which evens out a batch; it hides nothing about a single example.

    Args:
        norm: C > 0, over all layers together.

    Source: Abadi et al. (2016), Algorithm 1, the clipping step.
    """

    name: ClassVar[str] = "per_example_clip"
    paper: ClassVar[Paper] = ABADI
    domains: ClassVar[frozenset[str]] = frozenset({ANY_DOMAIN})
    strength: ClassVar[str] = "norm"
    strengths: ClassVar[tuple[float, ...]] = (8.0, 4.0, 1.0, 0.1)

    norm: float = 4.0

    def __post_init__(self) -> None:
        check_norm(self.norm, "norm")

    def on_gradient(self, gradient: Tensors, step: Step) -> dict[str, Tensor]:
        """The combination of the clipped gradients of the step's examples."""
        total, factor = clipped_sum(gradient, step, self.norm)
        return {name: t * factor for name, t in total.items()}

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """The same clip on the simulated gradient of a single example."""
        return clip_aware_view(observation, self.norm)


def clipped_sum(gradient: Tensors, step: Step, norm: float) -> tuple[dict[str, Tensor], float]:
    """The sum of the clipped per-example gradients, and the factor that the loss's own combination puts before it."""
    each = {name: t.detach() for name, t in step.per_example().items()}
    lengths = torch.stack([t.flatten(1).square().sum(1) for t in each.values()]).sum(0).sqrt()
    step.facts["clipped"] = float((lengths > norm).double().mean())
    return {name: t.sum(0) for name, t in clipped(each, norm).items()}, combined(gradient, each, step)


def clip_aware_view(observation: Observation, norm: float) -> AdversaryView:
    """The view of a step whose examples were clipped one by one.

    For one example and one step, clipping is a scale and is simulated exactly. A batch's clipped examples keep their
    directions and weigh more alike, which no map of the simulated mean expresses: it is matched as it is.
    """
    local = observation.local
    single = observation.num_examples == 1 and (
        local.sends == "gradient" or (len(local.steps(1)) == 1 and local.momentum == 0)
    )
    if not single:
        return AdversaryView(knows=f"Each example's gradient is clipped to {norm:g}, which leaves directions alone.")
    bound = norm if local.sends == "gradient" else norm * local.learning_rate
    return AdversaryView(
        knows=f"The example's gradient is scaled down to a length of {norm:g}: the simulated one is, too.",
        surrogate=lambda update: clipped(update, bound),
    )
