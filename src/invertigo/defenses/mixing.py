"""What MixUp and InstaHide share: weights of who is mixed into whom, blended labels, and how an adversary unmixes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.types import InvalidValueError, LocalTraining, Task

MIXTURE = "mixture"
"""Field of an informed adversary's candidate: logits of the weights with which examples are mixed, a row for each."""

Fields = Mapping[str, Tensor]


def mixed(defense: str, fields: Fields, weights: Float[Tensor, "batch batch"], task: Task) -> dict[str, Tensor]:
    """The batch with every example a weighted sum of examples, and the labels likewise.

    Raises: InvalidValueError when it cannot be known how labels are blended.
    """
    inputs, target = task.domain.inputs, task.domain.target
    if not fields[target].is_floating_point() and task.num_classes is None:
        raise InvalidValueError(
            f"Defense '{defense}' blends the labels too, since a mixture labelled as one example would tell whose it "
            "is; for that it must know how many classes there are. State them: Task(num_classes=...)."
        )
    images = fields[inputs]
    weights = weights.to(images)
    labels = one_hot(fields[target], task.num_classes, images)
    return {**fields, inputs: blended(weights, images), target: weights @ labels}


def blended(weights: Tensor, images: Tensor) -> Tensor:
    """Row i is the sum of all examples j, weighted by `weights[i, j]`."""
    return torch.einsum("ij,j...->i...", weights, images)


def one_hot(labels: Tensor, classes: int | None, like: Tensor) -> Float[Tensor, "batch classes"]:
    """Labels as probabilities of classes."""
    if labels.is_floating_point():
        return labels.to(like)
    assert classes is not None  # callers check
    return torch.eye(classes, dtype=like.dtype, device=like.device)[labels]


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """A NumPy generator that continues `generator`; NumPy draws gamma variables from a generator, PyTorch does not."""
    seeds = torch.randint(2**62, (2,), generator=generator, device=generator.device)
    return np.random.default_rng(seeds.tolist())


def partners(count: int, draw: np.random.Generator) -> np.ndarray:
    """(count,) for every example another one, each once: nobody is left alone with itself."""
    order = draw.permutation(count)
    partner = np.empty(count, dtype=np.int64)
    partner[order] = np.roll(order, -1)
    return partner


def unmixing(task: Task, local: LocalTraining, own: float) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]]:
    r"""A candidate's fields as the client mixed them; $M$ in the weights $\mathrm{softmax}(M / 3 + c I)$ is unknown.

    The order of the mixed examples does not show in a gradient, so each may be taken for the one it holds most of;
    hence $c$ =`own` on the diagonal. Examples are mixed inside a local step only. A candidate without the unknowns (of
    an exact attack) stays as it is.
    """
    inputs, target = task.domain.inputs, task.domain.target

    def transform(fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named = dict(fields)
        logits, images = named.pop(MIXTURE, None), named[inputs]
        if logits is None or len(logits) != len(images):
            return named
        count = len(images)
        apart = torch.ones(count, count, dtype=torch.bool, device=images.device)
        for part in local.steps(count):
            apart[part, part] = False
        bias = own * torch.eye(count, dtype=images.dtype, device=images.device)
        weights = (logits / 3 + bias.masked_fill(apart, -math.inf)).softmax(-1)
        named[inputs] = blended(weights, images)
        named[target] = weights @ one_hot(named[target], task.num_classes, images)
        return named

    return transform


def within_steps(
    encode: Callable[[Fields, torch.Generator], dict[str, Tensor]], local: LocalTraining
) -> Callable[[Fields, torch.Generator], dict[str, Tensor]]:
    """`encode` for a whole batch whose local steps are encoded one by one."""

    def draw(fields: Fields, generator: torch.Generator) -> dict[str, Tensor]:
        count = len(next(iter(fields.values())))
        first = local.steps(count)[: math.ceil(count / (local.batch_size or count))]
        parts = [encode({name: t[part] for name, t in fields.items()}, generator) for part in first]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    return draw
