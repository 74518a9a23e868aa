"""Is the first thing that touches the image a linear layer, and what does it read?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList

from invertigo.attacks.exact.reparametrised import weight_names
from invertigo.federation.calling import calling
from invertigo.federation.functional import simulating
from invertigo.types import Domain, RequirementError, widened


@dataclass(frozen=True)
class FirstLinear:
    """A linear layer whose input is the flattened image, up to a fixed affine map a pixel (`scale`, `shift`).

    Where other layers stand before it, feature `f` reads pixel `pixel[f]` (-1: none), and pixel `p` is best told from
    feature `feature[p]`: one that reads it, else one that reads the nearest pixel that arrives.
    """

    name: str
    module: Any  # nn.Linear; with `convolutions`, perhaps a covering nn.Conv2d
    weight_name: str
    bias_name: str | None
    scale: Tensor
    shift: Tensor
    shape: tuple[int, ...]
    pixel: Tensor | None = None
    feature: Tensor | None = None

    @property
    def neurons(self) -> int:
        """Outputs of the layer."""
        return self.module.out_features if isinstance(self.module, nn.Linear) else self.module.out_channels

    def images(self, inputs: Tensor) -> Tensor:
        """(row, *shape) images whose layer inputs are `inputs` (row, feature)."""
        flat = (inputs - self.shift) / self.scale
        if self.feature is not None:
            flat = flat[:, self.feature]
        return flat.unflatten(1, self.shape)

    def inputs(self, images: Tensor) -> Tensor:
        """(row, feature) layer inputs of `images` (row, *shape); zero where no pixel is read."""
        flat = images.flatten(1)
        if self.pixel is None:
            return flat * self.scale + self.shift
        return torch.where(self.pixel >= 0, flat[:, self.pixel.clamp_min(0)] * self.scale + self.shift, 0.0)

    @property
    def arrives(self) -> Tensor:
        """(feature,) whether it reads a pixel."""
        return torch.ones_like(self.scale, dtype=torch.bool) if self.pixel is None else self.pixel >= 0

    @property
    def arriving(self) -> float:
        """Share of the image's pixels that the layer reads."""
        if self.pixel is None:
            return 1.0
        return len(self.pixel[self.pixel >= 0].unique()) / torch.Size(self.shape).numel()


def find_first_linear(
    model: nn.Module,
    domain: Domain,
    *,
    mode: str = "eval",
    run: Callable[[Tensor], Any] | None = None,
    convolutions: bool = False,
) -> FirstLinear:
    """The linear layer that reads every pixel before any other parameter does.

    A dry run on three images finds the first module with parameters of its own, and checks that its input is the
    flattened image, perhaps normalised by a fixed affine map. `run` runs the model where it reads more than images.
    With `convolutions`, one whose kernel covers its whole input counts: it is a linear layer with a weight (out, *in).

    Raises: RequirementError that says what stands first instead.
    """
    shape = domain.example_shapes()[domain.inputs]
    like = widened(next(model.parameters()))
    low, high = (bound.to(like).expand(shape) for bound in domain.bounds(domain.inputs))
    weights = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(like)
    probes = torch.stack([low, high, low + weights * (high - low)])
    name, module, inputs = _first_parametric(model, probes, mode, run or calling(model))
    covers = convolutions and isinstance(module, nn.Conv2d) and _covers(module, inputs)
    if not isinstance(module, nn.Linear) and not (isinstance(module, nn.Conv2d) and covers):
        raise RequirementError(
            f"The first layer with parameters, '{name}', is a {type(module).__name__}; the update gives its input away "
            "exactly only when it is a linear layer on the flattened image."
        )
    flat = probes.flatten(1)
    if inputs[0].numel() != flat.shape[1] or (not covers and inputs.shape[-1] != flat.shape[1]):
        raise RequirementError(
            f"The first linear layer '{name}' reads a tensor of shape {tuple(inputs.shape[1:])} rather than the "
            f"{flat.shape[1]} pixels of the flattened image."
        )
    inputs = inputs.flatten(1)
    scale = (inputs[1] - inputs[0]) / (flat[1] - flat[0])
    shift = inputs[0] - scale * flat[0]
    tolerance = 1e3 * torch.finfo(like.dtype).eps * float(inputs.abs().max() + 1)
    if bool((scale == 0).any()) or not torch.allclose(inputs[2], flat[2] * scale + shift, atol=tolerance):
        raise RequirementError(
            f"The first linear layer '{name}' reads a transformed image, from which pixels do not follow."
        )
    weight, bias = weight_names(model, name)
    if covers and not weight.endswith("weight"):
        raise RequirementError(f"The weight of convolution '{name}' is computed from others, which is not read here.")
    return FirstLinear(name, module, weight, bias, scale.double(), shift.double(), tuple(shape))


def _covers(module: nn.Conv2d, inputs: Tensor) -> bool:
    """The kernel is as large as what it reads, so that it stands in one place only."""
    plain = module.groups == 1 and set(module.dilation) == {1} and module.padding in (0, (0, 0), "valid")
    return plain and tuple(module.kernel_size) == tuple(inputs.shape[2:])


def _first_parametric(
    model: nn.Module, probes: Tensor, mode: str, run: Callable[[Tensor], Any]
) -> tuple[str, nn.Module, Tensor]:
    seen: list[tuple[str, nn.Module, Tensor]] = []

    def record(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                seen.append((name, module, inputs[0].detach().clone()))

        return hook

    own = [(n, m) for n, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))]
    own = [(n, m) for n, m in own if not isinstance(m, ParametrizationList)]
    handles = [module.register_forward_pre_hook(record(name)) for name, module in own]
    try:
        with simulating(model, mode), torch.no_grad():
            run(probes)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise RequirementError("No layer of the model has parameters, so there is no first layer to read.")
    _check_used_once(seen)
    return seen[0]


def _check_used_once(seen: list[tuple[str, nn.Module, Tensor]]) -> None:
    """Raises: RequirementError where the first layer's parameters are used again on something else."""
    name, first, inputs = seen[0]
    own = {id(p) for p in first.parameters()}
    again = [(n, m, i) for n, m, i in seen[1:] if m is first or own & {id(p) for p in m.parameters(recurse=False)}]
    if any(m is not first or i.shape != inputs.shape or not torch.equal(i, inputs) for _, m, i in again):
        raise RequirementError(
            f"The parameters of the first layer '{name}' are used {len(again) + 1} times in one pass (again in "
            f"'{again[0][0]}'), so their gradient is a sum over uses, and its ratio is not the input."
        )
