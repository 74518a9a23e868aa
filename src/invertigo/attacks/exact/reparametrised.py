"""The gradient by a layer's weight, where the update holds those of the numbers that the weight is computed from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from invertigo.types import Observation, RequirementError

_PARTS = {
    "parametrizations.weight.original": "spectral norm",
    "parametrizations.weight.original1": "weight norm",
    "weight_v": "weight norm",
}
"""Where the direction of a computed weight stands; old-style spectral norm is `weight_orig` and not read."""
_LENGTHS = {"parametrizations.weight.original1": "parametrizations.weight.original0", "weight_v": "weight_g"}


def weight_names(model: nn.Module, name: str) -> tuple[str, str | None]:
    """Name of the parameter that stands for the weight of layer `name`, and of its bias.

    Raises: RequirementError for a weight that is computed in a way unknown here.
    """
    names = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    dot = f"{name}." if name else ""
    weight = next((f"{dot}{part}" for part in ("weight", *_PARTS) if f"{dot}{part}" in names), None)
    if weight is None:
        raise RequirementError(
            f"The weight of the first layer '{name}' is computed from other parameters in a way that is not understood "
            "here (weight norm and spectral norm are), so its gradient cannot be had from theirs."
        )
    return weight, f"{dot}bias" if f"{dot}bias" in names else None


def weight_gradient(observation: Observation, name: str, weight_name: str, bias: Tensor) -> Tensor:
    r"""(out, in) $G=\partial L/\partial W$ in float64.

    Weight norm, $W_i = g_i\, v_i/|v_i|$: $G_i = \dot g_i \hat v_i + (|v_i|/g_i)\,\dot v_i$, with the gradients
    $\dot g, \dot v$ of the update. Spectral norm, $W = V/\sigma$ with $\sigma = u^\top V v$:
    $G = \sigma \dot V + t\,u v^\top$, where $t = \langle G, W\rangle$ is not in the update. It follows from neurons
    without any gradient of their bias, whose rows of $G$ are zero, or, of one example, from $G = g_b x^\top$.

    Raises: RequirementError where $t$ does not follow.
    """
    dot, sent = f"{name}." if name else "", observation.update.tensors
    part = weight_name.removeprefix(dot)
    if part == "weight":
        return sent[weight_name].double().flatten(1)  # of a convolution: (out, in, height, width)
    held = observation.parameters[weight_name].double()
    if _PARTS[part] == "spectral norm":
        return _spectral(observation, dot, held, sent[weight_name].double(), bias)
    length = dot + _LENGTHS[part]
    if observation.parameters[length].shape != (len(held), *[1] * (held.ndim - 1)):
        raise RequirementError(f"Weight norm of '{name}' is not taken row by row (dim=0), so its gradient is not read.")
    size, scale = held.norm(dim=1, keepdim=True), observation.parameters[length].double()
    return sent[length].double() * held / size + size / scale * sent[weight_name].double()


def _spectral(observation: Observation, dot: str, held: Tensor, sent: Tensor, bias: Tensor) -> Tensor:
    left, right = _vectors(observation, dot)
    scaled = float(left @ held @ right) * sent
    dead = (bias == 0) & (left != 0)
    if bool(dead.any()):
        known = torch.outer(left[dead], right)
        return scaled - (scaled[dead] * known).sum() / known.square().sum() * torch.outer(left, right)
    if observation.num_examples != 1:
        raise RequirementError(
            f"Spectral norm of '{dot.rstrip('.')}' hides one direction of its weight's gradient, which follows for one "
            "example, or where some neuron is silent for the whole batch."
        )
    along = torch.linalg.lstsq(torch.stack([bias, left], dim=1), scaled).solution[1]
    return scaled - along @ right / right.square().sum() * torch.outer(left, right)


def _vectors(observation: Observation, dot: str) -> tuple[Tensor, Tensor]:
    """u and v as the client's step used them: in training mode, after one more power iteration."""
    model, prefix = observation.task.model, f"{dot}parametrizations.weight"
    module = model.get_submodule(f"{prefix}.0")
    buffers = {part: observation.buffers[f"{prefix}.0.{part}"].double().clone() for part in ("_u", "_v")}
    before = module.training
    try:
        module.train(observation.local.mode == "train")
        functional_call(module, buffers, (observation.parameters[f"{prefix}.original"].double(),))
    finally:
        module.training = before
    return buffers["_u"], buffers["_v"]
