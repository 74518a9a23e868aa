"""Where an image is cut into tokens that get a learnt position: a patch embedding and the parameter added to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo.attacks.exact.reparametrised import weight_names
from invertigo.federation.calling import calling
from invertigo.federation.functional import simulating
from invertigo.types import Domain, RequirementError

BASE = 97
"""Pixels are told apart by the two digits of their number to this base, or more for large images."""


@dataclass(frozen=True)
class TokenLayer:
    """A patch embedding and the positions added to its tokens.

    Entry e of token t reads pixel `pixel[t, e]` (-1: none) as `value * scale + shift`. Row `rows[t]` of the parameter
    `positions`, seen as rows of the token's width, is added to token t.
    """

    name: str
    weight_name: str
    positions: str
    rows: Tensor
    pixel: Tensor
    scale: Tensor
    shift: Tensor
    shape: tuple[int, ...]

    def image(self, tokens: Tensor) -> Tensor:
        """The image (*shape) behind tokens (token, entry); the mean where tokens overlap, NaN where none reads."""
        read = self.pixel >= 0
        values = ((tokens - self.shift) / self.scale)[read]
        flat = tokens.new_zeros(torch.Size(self.shape).numel())
        count = flat.index_add(0, self.pixel[read], torch.ones_like(values))
        return (flat.index_add(0, self.pixel[read], values) / count).reshape(self.shape)


def find_token_layer(
    model: nn.Module, domain: Domain, *, mode: str = "eval", run: Callable[[Tensor], Any] | None = None
) -> TokenLayer:
    """The patch embedding of `model`, found by running it on made-up images.

    The first layer with parameters of its own that is a convolution or a linear layer must read pixels, perhaps each
    scaled and shifted. The position parameter is the one whose gradient is, row by row, that of the tokens.

    Raises: RequirementError that says what is missing.
    """
    shape = domain.example_shapes()[domain.inputs]
    like = next(model.parameters())
    low, high = (bound.to(like).expand(shape) for bound in domain.bounds(domain.inputs))
    name, module = _embedding(model)
    weight, _ = weight_names(model, name)
    base = max(BASE, int(low.numel() ** 0.5) + 1)
    number = torch.arange(low.numel(), device=like.device).reshape(shape)
    digits = [(digit.to(like) + 1) / (base + 1) for digit in (number // base, number % base)]
    probes = torch.stack([low, high, *(low + digit * (high - low) for digit in digits)])
    read, cotangents, gradients = _probe(model, module, probes, mode, run or calling(model))
    low_read, high_read, *told = read
    scale, shift = (high_read - low_read) / (high - low).flatten()[0], low_read
    scale = torch.where((high_read - low_read).abs() > 1e-6, scale, 0.0)
    unit = [(one - low_read) / (high_read - low_read) for one in told]
    tens, ones = (((digit * (base + 1)) - 1).nan_to_num(0.0, 0.0, 0.0) for digit in unit)
    pixel = (tens.round() * base + ones.round()).long()
    if bool(((tens - tens.round()).abs() + (ones - ones.round()).abs())[scale != 0].gt(0.05).any()):
        raise RequirementError(f"The patch embedding '{name}' does not read single pixels, so they do not follow.")
    pixel = torch.where(scale != 0, pixel, -1).clamp(max=low.numel() - 1)
    flat_low = low.flatten()[pixel.clamp_min(0)]
    shift = (shift - scale * flat_low).double()
    positions, rows = _positions(cotangents, gradients, weight, name)
    return TokenLayer(
        name, weight, positions, rows, pixel, torch.where(scale != 0, scale, 1.0).double(), shift, tuple(shape)
    )


def _embedding(model: nn.Module) -> tuple[str, nn.Conv2d | nn.Linear]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros":
            return name, module
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            break
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            return name, module
    raise RequirementError("The model has no convolution or linear layer that could embed patches.")


def unfolded(module: nn.Conv2d | nn.Linear, read: Tensor) -> Tensor:
    """(row, token, entry) what each token of the embedding reads of its input."""
    if isinstance(module, nn.Linear):
        return read
    padding = module.padding
    if isinstance(padding, str):
        padding = (0, 0) if padding == "valid" else tuple(
            d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size)
        )  # fmt: skip
    return F.unfold(read, module.kernel_size, module.dilation, padding, module.stride).transpose(1, 2)


def _probe(
    model: nn.Module, module: nn.Conv2d | nn.Linear, probes: Tensor, mode: str, run: Callable[[Tensor], Any]
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What tokens read of the probes, and for the last one each token's cotangent and the parameters' gradients."""
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0].detach(), output))

    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    handle = module.register_forward_hook(hook)
    try:
        with simulating(model, mode), torch.enable_grad():
            run(probes[:-1])
            own = {name: p.detach().requires_grad_() for name, p in named.items()}
            outcome = calling(model, own)(probes[-1:])
            first = next((t for t in _tensors(outcome) if t.is_floating_point()), None)
            if first is None or len(seen) != 2:
                raise RequirementError("The model's patch embedding runs more than once, or it returns no tensor.")
            pull = torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
            embedded = seen[1][1]
            grads = torch.autograd.grad((first * pull).sum(), [embedded, *own.values()], allow_unused=True)
    finally:
        handle.remove()
    if grads[0] is None or seen[0][0].ndim != (4 if isinstance(module, nn.Conv2d) else 3):
        raise RequirementError("The first layer reads no image or tokens of one, so it embeds no patches.")
    cotangents = grads[0].flatten(2).transpose(1, 2)[0] if isinstance(module, nn.Conv2d) else grads[0][0]
    read = unfolded(module, torch.cat([one[0] for one in seen]))
    return read, cotangents, {n: g for n, g in zip(own, grads[1:]) if g is not None}


def _tensors(outcome: Any) -> list[Tensor]:
    if isinstance(outcome, Tensor):
        return [outcome]
    parts = outcome.values() if hasattr(outcome, "values") else outcome if isinstance(outcome, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _positions(cotangents: Tensor, gradients: dict[str, Tensor], weight: str, layer: str) -> tuple[str, Tensor]:
    """Name of the parameter whose gradient holds every token's cotangent, and in which row each stands."""
    width = cotangents.shape[1]
    for name, gradient in gradients.items():
        if name == weight or gradient.numel() % width or gradient.shape[-1] != width:
            continue
        rows = gradient.reshape(-1, width)
        if len(rows) < len(cotangents):
            continue
        distance, nearest = torch.cdist(cotangents.double(), rows.double()).min(1)
        close = distance <= 1e-4 * cotangents.norm(dim=1)
        if bool(close.all()) and len(nearest.unique()) == len(nearest):
            return name, nearest
    raise RequirementError(
        f"Behind '{layer}', no parameter is added to each token alone (a learnt position embedding), so the tokens' "
        "cotangents are not in the update."
    )
