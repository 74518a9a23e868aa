"""Soteria: hide the part of the representation layer's gradient that tells most about the input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from invertigo.defenses.last_layer import find_last_layer
from invertigo.defenses.registry import register
from invertigo.federation.functional import simulating
from invertigo.types import AdversaryView, Defense, InvalidValueError, Observation, Paper, Step

Tensors = Mapping[str, Tensor]
CHUNK = 64
"""Features whose derivatives are taken in one backward pass."""


@register
@dataclass(frozen=True, kw_only=True)
class Soteria(Defense):
    r"""In the classifier's weight gradient, zero the columns of the features that give the input away most.

    Feature $r_f$ of the representation (what the last linear layer reads) scores
    $s_f = \sum_n \lVert \partial r_f / \partial x_n \rVert / |r_{f,n}|$; columns that score below the `percentile`-th
    percentile are set to zero. All other layers, and the bias, are sent as they are.

    Args:
        percentile: share of the live features that is hidden, in percent, in (0, 100]. The authors' scripts take 1;
            others 10, 50 and 80.

    A feature that is zero for an example (ReLU) has no ratio, and its column holds nothing of that example: it does not
    count there. Features dead for the whole batch are not counted at all. The authors' code divides zero by zero
    there, which makes the percentile NaN and hides nothing.

    Source: Sun et al. (2021), Section 4. The informed attacker drops the layer as in Balunovic et al. (2022), or
    where one gradient is sent only its zeros.
    """

    name: ClassVar[str] = "soteria"
    paper: ClassVar[Paper] = Paper(
        "sun2021soteria",
        "Soteria: Provable Defense Against Privacy Leakage in Federated Learning From Representation Perspective",
        "Sun, Jingwei and Li, Ang and Wang, Binghui and Yang, Huanrui and Li, Hai and Chen, Yiran",
        2021,
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition",
        "2012.06043",
    )
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    strength: ClassVar[str] = "percentile"
    strengths: ClassVar[tuple[float, ...]] = (1, 10, 50, 80, 95)

    percentile: float | int = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100:
            raise InvalidValueError(
                f"soteria.percentile is {self.percentile}; it is the share of the representation that is hidden, so it "
                "must lie in (0, 100]. 0 would send the true gradient; 80 is a usual choice."
            )

    def on_gradient(self, gradient: Tensors, step: Step) -> Tensors:
        """The gradient with the columns of the telling features at zero."""
        _, weight, module = find_last_layer(self.name, step.task, step.model, step.local.mode)
        features, slopes = representation(step, module)
        hidden = self.hidden(features, slopes)
        step.facts["hidden_features"] = float(hidden.sum()) / len(hidden)
        return {**gradient, weight: gradient[weight].masked_fill(hidden, 0.0)}

    def hidden(
        self, features: Float[Tensor, "batch feature"], slopes: Float[Tensor, "batch feature"]
    ) -> Bool[Tensor, " feature"]:
        """Which features are hidden, from their values and the lengths of their derivatives; ties by index."""
        size, slope = features.detach().double().abs(), slopes.double()
        active = size > 0
        score = torch.where(active, slope / size.where(active, 1.0), 0.0).sum(0)
        live = active.any(0)
        # As many as lie strictly below the linearly interpolated percentile of different scores.
        count = max(1, math.ceil(self.percentile / 100 * (int(live.sum()) - 1)))
        if self.percentile == 100:
            count = int(live.sum())
        order = score.masked_fill(~live, math.inf).argsort(stable=True)
        chosen = torch.zeros_like(live)
        chosen[order[:count]] = True
        return chosen & live

    def adversary_view(self, observation: Observation) -> AdversaryView:
        """Leave out the layer that is tampered with; of a single gradient, only its zeros."""
        task, mode = observation.task, observation.local.mode
        _, weight, _ = find_last_layer(self.name, task, task.model, mode)
        sent = observation.update.tensors[weight]
        alone = observation.local.sends == "gradient"
        return AdversaryView(
            knows=f"The adversary knows that only '{weight}' is tampered with and leaves "
            + ("its zeros" if alone else "that layer")
            + " out; all other layers are true.",
            visible={weight: (sent != 0).to(sent) if alone else torch.zeros_like(sent)},
        )


def representation(
    step: Step, module: nn.Module
) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch feature"]]:
    r"""What `module` reads of each example, and $\lVert \partial \sum_m r_{f,m} / \partial x_n \rVert$ for each."""
    read: list[Tensor] = []

    def record(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        read.append(inputs[0])

    images = step.batch[step.task.domain.inputs].detach().clone().requires_grad_()
    handle = module.register_forward_pre_hook(record)
    try:
        with simulating(step.model, step.local.mode), torch.enable_grad():
            step.model(images)
    finally:
        handle.remove()
    features = read[-1]
    lengths = []
    for start in range(0, features.shape[1], CHUNK):
        part = features[:, start : start + CHUNK].sum(0)
        rows = torch.eye(len(part), dtype=part.dtype, device=part.device)
        (slopes,) = torch.autograd.grad(part, images, rows, is_grads_batched=True, retain_graph=True)
        lengths.append(slopes.flatten(2).norm(dim=2).T)
    return features.detach(), torch.cat(lengths, dim=1)
