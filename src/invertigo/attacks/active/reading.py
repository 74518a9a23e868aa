"""Images out of the gradient rows of a hidden linear layer."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from invertigo.attacks.active.passage import Passage
from invertigo.types import Domain, Observation, RequirementError


def rows(
    observation: Observation, weight: str, bias: str
) -> tuple[Float[Tensor, "row feature"], Float[Tensor, " row"]]:
    """The layer's gradient rows in float64, up to one factor that ratios do not depend on."""
    sent = observation.update.tensors
    if weight not in sent or bias not in sent:
        raise RequirementError(f"The update lacks '{weight}' or '{bias}', which this attack reads.")
    return sent[weight].double(), sent[bias].double()


def candidates(
    weight: Float[Tensor, "row feature"], bias: Float[Tensor, " row"], eps: float
) -> Float[Tensor, "candidate feature"]:
    """Inputs of the rows that some example activated: the ratio of the two gradients, (candidate, feature)."""
    firing = bias.abs() > 50 * eps * bias.abs().max()
    return weight[firing] / bias[firing, None]


def plausible(images: Tensor, domain: Domain, slack: float) -> Bool[Tensor, " row"]:
    """Which of `images` (row, *shape) keep within the range of real ones, give or take `slack` of it."""
    low, high = (bound.to(images) for bound in domain.bounds(domain.inputs))
    margin = slack * (high - low)
    return ((images >= low - margin) & (images <= high + margin)).flatten(1).all(1)


def distinct(images: Tensor, tolerance: float = 1e-3) -> Tensor:
    """`images` without repetitions: the first of those that agree to `tolerance` in every pixel."""
    kept: list[int] = []
    flat = images.flatten(1)
    for i in range(len(flat)):
        if not kept or float((flat[kept] - flat[i]).abs().amax(1).min()) > tolerance:
            kept.append(i)
    return images[kept]


def mid_grey(domain: Domain) -> float:
    """The middle of the range, for pixels that nothing is known of."""
    low, high = domain.bounds(domain.inputs)
    return float((low.mean() + high.mean()) / 2)


def seen_images(passage: Passage, inputs: Tensor, observation: Observation, slack: float) -> Tensor:
    """Images of layer inputs that lie within range, each once; as many as the batch can hold at most."""
    domain = observation.task.domain
    images = passage.images(inputs, mid_grey(domain))
    images = distinct(images[plausible(images, domain, slack)])
    limit = observation.num_examples
    return images if limit is None else images[:limit]
