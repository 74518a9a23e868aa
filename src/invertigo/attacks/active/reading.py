"""Images out of the ratios of gradient rows."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from invertigo.attacks.exact.first_layer import FirstLinear
from invertigo.types import Domain, Observation


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


def seen_images(layer: FirstLinear, inputs: Tensor, observation: Observation, slack: float) -> Tensor:
    """Images of layer inputs (row, feature) within range, each once; as many as the batch can hold at most."""
    images = layer.images(inputs)
    images = distinct(images[plausible(images, observation.task.domain, slack)])
    limit = observation.num_examples
    return images if limit is None else images[:limit]
