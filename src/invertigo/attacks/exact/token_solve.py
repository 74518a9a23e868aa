"""Read an image off a patch embedding: the gradient of the positions is every token's cotangent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.attacks.dry_run import ERRORS, dry_run
from invertigo.attacks.exact.reparametrised import weight_gradient
from invertigo.attacks.exact.token_layer import TokenLayer, find_token_layer
from invertigo.attacks.labels import infer_labels
from invertigo.attacks.registry import register
from invertigo.types import (
    INVERTIGO,
    Observation,
    Paper,
    Progress,
    Reconstruction,
    Requirement,
    RequirementError,
    check_requirements,
    rounding,
)

UNEXPLAINED = 3e3
"""Roundings of the gradient that one image may leave unexplained, relative to its norm."""

PROVING = 8
"""Equations an entry that must be left over for a proof: LayerNorm behind the embedding satisfies one of itself."""


@register
@dataclass(frozen=True, kw_only=True)
class TokenSolve:
    r"""One image from a patch embedding with learnt positions, exactly.

    A patch $p_t$ becomes the token $E p_t + e + \pi_t$. So the gradient of the position $\pi_t$ is the cotangent
    $\delta_t$ of token t, and that of E is $\sum_t \delta_t p_t^\top$: with at most as many tokens as they are wide,
    one least-squares solve gives all patches, whatever the rest of the model and the loss may be. The unknown scale of
    an update cancels, and several local steps on the one image add up. Where there are fewer tokens than the width,
    equations are left over, and one image must satisfy them: that proves it, from eight on.

    Of several images the positions give the sum of the cotangents only, token by token, and $\sum_b\sum_t
    \delta_{bt} p_{bt}^\top$ does not come apart: the attack refuses them.

    Source: ours; Lu et al. (2022), APRIL, solve a self-attention layer from the position embedding's gradient.
    """

    name: ClassVar[str] = "token_solve"
    paper: ClassVar[Paper] = INVERTIGO
    papers: ClassVar[tuple[Paper, ...]] = (
        INVERTIGO,
        Paper(
            "lu2022april",
            "APRIL: Finding the Achilles' Heel on Privacy for Vision Transformers",
            "Lu, Jiahao and Zhang, Xi Sheryl and Zhao, Tianli and He, Xiangyu and Cheng, Jian",
            2022,
            "Conference on Computer Vision and Pattern Recognition",
            "2112.14087",
        ),
    )
    requires: ClassVar[frozenset[Requirement]] = frozenset()
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    def reconstruct(
        self, observation: Observation, *, generator: torch.Generator, progress: Progress | None = None
    ) -> Reconstruction:
        """See `types.Attack`. Raises: RequirementError where tokens do not follow, with the reason."""
        started = time.perf_counter()
        check_requirements(self, observation)
        size = observation.num_examples
        if size not in (None, 1):
            raise RequirementError(
                f"The positions' gradient is the sum over {size} images of each token's cotangent; patches follow of "
                "one image only."
            )
        layer = token_layer(observation)
        tokens, residual, spare = solve_tokens(observation, layer)
        domain, like = observation.task.domain, observation.parameters[layer.weight_name]
        low, high = (bound.to(like.device, torch.float64) for bound in domain.bounds(domain.inputs))
        image = layer.image(tokens)[None]
        unread = int(image.isnan().sum())
        image = torch.where(image.isnan(), (low + high) / 2, image)
        fields = {domain.inputs: image.to(like.dtype)}
        labels = _labels(observation)
        if labels is not None:
            fields[domain.target] = labels
        notes = [
            f"{len(tokens)} tokens of '{layer.name}' were solved from the gradient of '{layer.positions}'; "
            f"{spare} equations an entry are left over, and {residual:.1e} of the gradient is unexplained."
        ]
        notes += ["Too few to prove it: another image may solve them as well."] * (spare < PROVING)
        notes += [f"{unread} values of the image are read by no token, and were set to mid-range."] * bool(unread)
        proven = spare >= PROVING and not unread
        return Reconstruction(
            fields=fields, attack=self.name, objective=residual, stopped="exact" if proven else "converged",
            seconds=time.perf_counter() - started, notes=tuple(notes),
            labels_inferred=labels is not None and observation.knowledge.labels is None,
        )  # fmt: skip


def token_layer(observation: Observation) -> TokenLayer:
    """The model's patch embedding. Raises: RequirementError where it has none whose tokens follow."""
    task, held = observation.task, (observation.buffers, observation.parameters)
    try:
        return find_token_layer(task.model, task.domain, mode="eval", run=lambda probes: dry_run(task, probes, *held))
    except ERRORS as error:
        raise RequirementError(f"No patch embedding could be found by running the model: {error}") from error


def solve_tokens(observation: Observation, layer: TokenLayer) -> tuple[Tensor, float, int]:
    """(token, entry) of the one image, the share of the gradient that it leaves, and the equations left over.

    Raises: RequirementError when the tokens are not determined, or no single image explains the gradient.
    """
    sent = observation.update.tensors
    if layer.weight_name not in sent or layer.positions not in sent:
        raise RequirementError(f"The update lacks '{layer.weight_name}' or '{layer.positions}'.")
    embedding = weight_gradient(observation, layer.name, layer.weight_name, torch.zeros(0)).flatten(1)
    width = len(embedding)
    cotangents = sent[layer.positions].double().reshape(-1, width)[layer.rows.to(embedding.device)]
    spare = width - len(cotangents)
    values = torch.linalg.svdvals(cotangents)
    eps = rounding(sent[layer.positions])
    if spare < 0 or float(values[-1]) <= 30 * eps * float(values[0]):
        rank = int((values > 30 * eps * values[0]).sum())
        raise RequirementError(
            f"{len(cotangents)} tokens of width {width} have {rank} independent cotangents, so their patches are not "
            "determined."
        )
    frame, triangle = torch.linalg.qr(cotangents.T)
    tokens = torch.linalg.solve_triangular(triangle, frame.T @ embedding, upper=True)
    residual = float((cotangents.T @ tokens - embedding).norm() / embedding.norm())
    if spare and residual > UNEXPLAINED * eps:
        raise RequirementError(
            f"No single image explains the embedding's gradient ({residual:.1e} of it is left): the update comes from "
            "several images, or something was added to it."
        )
    return tokens, residual, spare


def _labels(observation: Observation) -> Tensor | None:
    if observation.knowledge.labels is not None:
        return observation.knowledge.labels
    try:
        return infer_labels(observation).labels
    except RequirementError:
        return None
