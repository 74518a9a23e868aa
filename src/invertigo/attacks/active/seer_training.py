"""How SEER trains the client's model together with the reader that stays with the server."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from invertigo.attacks.active.seer_bait import Bait, Drawn
from invertigo.attacks.active.seer_reader import Reader
from invertigo.attacks.matching.pace import Pace
from invertigo.models.checkpoint import restored, saved
from invertigo.types import ConfigurationError, Task

Gradients = Callable[[Mapping[str, Tensor], Tensor, Tensor, Tensor], dict[str, Tensor]]
WARM, KEEP_EVERY = 20, 100
"""Steps in which the learning rate rises, and between two checkpoints."""


@dataclass(frozen=True)
class Recipe:
    """What is minimised and how; see `Seer`."""

    batches: int
    model_rate: float
    reader_rate: float
    whole: float
    task_weight: float


def weighted_gradients(task: Task) -> Gradients:
    r"""The function $(\theta, x, y, w) \mapsto \nabla_\theta \sum_i w_i \ell_i$ for many batches and weightings.

    It takes images (batch, example, ...), labels (batch, example) and weights (batch, weighting, example), and returns
    tensors (batch x weighting, *parameter). BatchNorm in training mode couples the examples of a batch as it does at
    a client, so this is no sum of gradients of single examples.
    """
    buffers = dict(task.model.named_buffers())
    frozen = {name: p for name, p in task.model.named_parameters() if not p.requires_grad}

    def total(parameters: Mapping[str, Tensor], images: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        predictions = functional_call(task.model, {**buffers, **frozen, **parameters}, (images,))
        each = vmap(lambda prediction, label: task.loss(prediction[None], label[None]))(predictions, labels)
        return (weights * each).sum()

    many = vmap(vmap(grad(total), (None, None, None, 0)), (None, 0, 0, 0))
    return lambda *given: {name: tensor.flatten(0, 1) for name, tensor in many(*given).items()}


def weightings(drawn: Drawn, generator: torch.Generator) -> Tensor:
    """(batch, 4, example): the wanted one; others at random and others alike, both of unit length; all."""
    one = F.one_hot(drawn.wanted, drawn.labels.shape[1]).double()
    others = 1 - one
    random = torch.randn(others.shape, generator=generator, device=generator.device).to(others) * others
    units = [mix / mix.norm(dim=1, keepdim=True).clamp_min(1e-12) for mix in (random, others)]
    return torch.stack([one, *units, torch.ones_like(one)], 1).to(drawn.images)


def fit(
    task: Task,
    reader: Reader,
    bait: Bait,
    recipe: Recipe,
    *,
    pace: Pace,
    checkpoint: Path | None,
    generator: torch.Generator,
) -> None:
    r"""Train `task.model` and `reader` in place by Adam, rates annealed to zero; to be called in the client's mode.

    $$\frac{\alpha}{1+\alpha} \lVert R(g_-) - R(0) \rVert^2 + \frac{1}{1+\alpha} \lVert R(g_+) - x_+ \rVert^2
    + w \lVert R(g) - x_+ \rVert^2 + t\, \ell$$

    $\alpha$ goes from 1/4 to the number of examples that are summed, over the first half. Goes on from the file
    `checkpoint`, and writes it.

    Raises: ConfigurationError for a checkpoint of another crowd, CorruptFileError for one of another training.
    """
    parameters = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
    learned = [*parameters.values(), *reader.parameters()]
    optimiser = torch.optim.Adam(
        [
            {"params": list(parameters.values()), "lr": recipe.model_rate},
            {"params": list(reader.parameters()), "lr": recipe.reader_rate},
        ]
    )
    rates = [group["lr"] for group in optimiser.param_groups]
    parts, gradients = {"model": task.model, "reader": reader}, weighted_gradients(task)
    done = 0 if checkpoint is None else _resumed(checkpoint, parts, optimiser, generator)
    while done < pace.total:
        reached = done / pace.total
        for group, rate in zip(optimiser.param_groups, rates):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * reached)) * min(1.0, (done + 1) / WARM)
        crowd = bait.size * bait.clients
        alpha = 2 ** (-2 + (math.log2(crowd) + 2) * min(1.0, 2 * reached))
        loss = _objective(task, parameters, gradients, reader, bait, recipe, alpha, generator)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimiser.step()
        done += 1
        stop = pace.asks_to_stop(done, loss.detach()[None])
        if checkpoint is not None and (stop or done % KEEP_EVERY == 0 or done == pace.total):
            saved(checkpoint, parts, {"adam": optimiser}, generator, done)
        if stop:
            break


def _objective(
    task: Task,
    parameters: Mapping[str, Tensor],
    gradients: Gradients,
    reader: Reader,
    bait: Bait,
    recipe: Recipe,
    alpha: float,
    generator: torch.Generator,
) -> Tensor:
    drawn = bait.draw(recipe.batches, generator)
    updates = gradients(parameters, drawn.images, drawn.labels, weightings(drawn, generator))
    seen = reader.select(updates).unflatten(0, (recipe.batches, bait.clients, 4))
    # The first client of each crowd holds the wanted example; a secure sum adds what the others send.
    pictured = reader(torch.cat([seen[:, 0, 0], seen[:, 0, 1], seen[:, 0, 2], seen[:, :, 3].sum(1)]))
    alone, random, alike, whole = pictured.chunk(4)
    nothing = reader(torch.zeros_like(seen[:1, 0, 0]))
    wanted = bait.pixels(drawn.examples[:: bait.clients])
    silence = ((torch.cat([random, alike]) - nothing) ** 2).mean()
    loss = alpha / (1 + alpha) * silence + ((alone - wanted) ** 2).mean() / (1 + alpha)
    if recipe.whole:
        loss = loss + recipe.whole * ((whole - wanted) ** 2).mean()
    if recipe.task_weight:
        predict = vmap(lambda images, labels: task.loss(task.model(images), labels))
        loss = loss + recipe.task_weight * predict(drawn.images, drawn.labels).mean()
    return loss


def _resumed(
    path: Path, parts: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, generator: torch.Generator
) -> int:
    reader = parts["reader"]
    assert isinstance(reader, Reader)
    expected = reader.crowd.clone()
    done = restored(path, parts, {"adam": optimiser}, generator)
    if not reader.crowd.equal(expected):
        raise ConfigurationError(
            f"{path} was trained for {int(reader.crowd[0])} examples of each of {int(reader.crowd[1])} clients, not "
            f"for {int(expected[0])} of {int(expected[1])}; name another file."
        )
    return done
