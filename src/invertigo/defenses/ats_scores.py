"""The two scores of a transformation policy that need no training: what its gradients give away, and how it learns."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from invertigo.domains import Images
from invertigo.federation.functional import simulating
from invertigo.types import Task

FLOOR = 1e-5
"""Added to eigenvalues before their logarithm and inverse are taken."""


def similarity_areas(
    task: Task,
    pixels: Float[Tensor, "image channel height width"],
    labels: Int[Tensor, " image"],
    noise: Float[Tensor, "image channel height width"],
    *,
    bins: int = 20,
) -> Float[Tensor, " image"]:
    r"""$\int_0^1 \frac1L \sum_l \cos(\nabla_l \ell(x_t), \nabla_l \ell(x))\,dt$ with $x_t = t x + (1 - t) u$.

    Of one image at a time, in inference mode. For each transformed image $x$ and start $u$, by the trapezoid rule over
    `bins` parts: how soon a search that goes from noise to the image is shown the way. Lower is more private; 1 is the
    most.

    Args:
        pixels: transformed, in [0, 1]; so is `noise`.
    """
    steps = torch.linspace(0, 1, bins + 1).to(pixels).view(-1, 1, 1, 1)
    areas = []
    with simulating(task.model, "eval"), torch.enable_grad():
        for image, label, start in zip(pixels, labels, noise):
            target, *path = (
                _layers(task, x[None], label[None]) for x in [image, *(steps * image + (1 - steps) * start)]
            )
            cosines = [torch.stack([_cosine(g, t) for g, t in zip(layers, target)]).mean() for layers in path]
            areas.append(torch.trapezoid(torch.stack(cosines), dx=1 / bins))
    return torch.stack(areas)


def _layers(task: Task, pixels: Tensor, labels: Tensor) -> list[Tensor]:
    """The gradient of each layer, flat."""
    assert isinstance(task.domain, Images)
    fields = {task.domain.inputs: task.domain.from_unit(pixels), task.domain.target: labels}
    leaves = [p for p in task.model.parameters() if p.requires_grad]
    loss = task.evaluate(task.model, fields)
    return [g.flatten() for g in torch.autograd.grad(loss, leaves, materialize_grads=True)]


def _cosine(left: Tensor, right: Tensor) -> Tensor:
    return torch.cosine_similarity(left, right, dim=0)


def jacobian_score(model: nn.Module, inputs: Float[Tensor, "image channel height width"]) -> float:
    r"""$-\frac1N \sum_i \log(v_i + k) + 1/(v_i + k)$, with $v$ the eigenvalues of the correlations between Jacobians.

    The Jacobian of an image is the derivative of the sum of its outputs. Where those of different images resemble each
    other, the model cannot tell the images apart, eigenvalues vanish and the score falls; without any correlation all
    are 1 and the score is -1, the highest. Per image here, in sum in the paper; $k = 10^{-5}$.

    Args:
        inputs: as the model reads them.

    Source: Gao et al. (2021), who take it from Mellor et al., Neural Architecture Search without Training (2021).
    """
    given = inputs.detach().clone().requires_grad_()
    with simulating(model, "eval"), torch.enable_grad():
        (slopes,) = torch.autograd.grad(model(given).sum(), given)
    rows = slopes.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
    values = torch.linalg.eigvalsh(rows @ rows.T).clamp_min(0) + FLOOR
    return -(values.log() + 1 / values).mean().item()
