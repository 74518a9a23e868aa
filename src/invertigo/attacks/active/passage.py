"""A way for raw pixels to a hidden linear layer, where a malicious server can plant its measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from invertigo.attacks.exact.first_layer import FirstLinear
from invertigo.federation.functional import simulating
from invertigo.types import RequirementError, Task

PROBES = 3
ENOUGH = 0.1
"""Share of the pixels that must arrive; below it, what is read off the layer is no image."""
OTHER_CHANNEL = 2.0
MIXING = (nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


@dataclass(frozen=True)
class Slot:
    """The channels of the first convolution that carry one of several clients: its pixels times `gain`, and one that is
    always `gain`."""

    number: int
    of: int
    gain: float = 1.0


@dataclass(frozen=True)
class Passage:
    """A hidden linear layer with bias that reads pixels, once `state` has turned the layers before it into copies.

    `consumer` is the name of the weight of the linear layer that reads this one's activations; None for a classifier.
    `constant` (feature,) says which inputs of the layer are the slot's gain whatever the image.
    """

    layer: FirstLinear
    bias: str
    consumer: str | None
    state: Mapping[str, Tensor]
    constant: Tensor

    def planted(self, weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """The parameters to plant for this layer to have `weight` (row, feature) and `bias` (row,)."""
        module = self.layer.module
        own = {self.layer.weight_name: weight.to(module.weight), self.bias: bias.to(module.bias)}
        return {**self.state, **own}


def find_passage(task: Task, mode: str, *, to_classifier: bool = False, slot: Slot | None = None) -> Passage:
    """The first hidden linear layer (or the classifier), with the layers before it turned into pixel copies.

    A convolution of stride s copies each of its input channels at s x s offsets, as far as its channels reach; a linear
    layer copies as many evenly spaced features as it has rows. The first of them adds what makes every pixel positive,
    so that rectifiers let it through. A `slot` lets the pixels through its channels only. What arrives is measured by
    a dry run.

    Raises: RequirementError when no hidden linear layer with bias is followed by another one, or too few pixels arrive.
    """
    model, shape = task.model, tuple(task.domain.example_shapes()[task.domain.inputs])
    probes = _probes(task, shape)
    calls = _executed(model, probes, mode)
    linear = [(name, module) for name, module, _ in calls if isinstance(module, nn.Linear)]
    if len(linear) < (1 if to_classifier else 2) or linear[-1 if to_classifier else 0][1].bias is None:
        raise RequirementError(
            "This model has no hidden linear layer with a bias that another linear layer reads, so a malicious server "
            "that may change parameters only has no place to plant measurements in."
        )
    at = len(linear) - 1 if to_classifier else 0
    first, hidden = linear[at]
    position = [name for name, _, _ in calls].index(first)
    before = [(n, m) for n, m, _ in calls[:position]]
    low = float(task.domain.bounds(task.domain.inputs)[0].min())
    state, shift = _copies(before, shape[0], max(0.0, -low), mode, slot)
    check_reads_examples(first, calls[position][2])
    gain = 1.0 if slot is None else slot.gain
    pixel, constant = _arrivals(model, state, probes, shift, gain, first, mode)
    names = {id(p): n for n, p in model.named_parameters()}
    consumer = None if to_classifier else names[id(linear[1][1].weight)]
    layer = FirstLinear(
        name=first,
        module=hidden,
        weight_name=names[id(hidden.weight)],
        bias_name=names[id(hidden.bias)],
        scale=torch.full((len(pixel),), gain, dtype=torch.float64, device=pixel.device),
        shift=torch.full((len(pixel),), gain * shift, dtype=torch.float64, device=pixel.device),
        shape=shape,
        pixel=pixel,
        feature=_nearest(pixel, shape) if bool((pixel >= 0).any()) else None,
    )
    if layer.arriving < ENOUGH:
        raise RequirementError(
            f"Only {layer.arriving:.0%} of the pixels can be passed on to the hidden linear layer '{first}': pooling "
            "or normalisation before it cannot be undone by choosing parameters."
        )
    return Passage(layer, names[id(hidden.bias)], consumer, state, constant)


def _probes(task: Task, shape: tuple[int, ...]) -> Tensor:
    """Images whose pixels are all different, so that it can be told which one arrives where."""
    low, high = (bound.double().expand(shape) for bound in task.domain.bounds(task.domain.inputs))
    drawn = torch.rand((PROBES, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (low.cpu() + drawn * (high - low).cpu()).to(next(task.model.parameters()).device)


def _executed(model: nn.Module, probes: Tensor, mode: str) -> list[tuple[str, nn.Module, Tensor]]:
    return _run(model, {}, probes, mode, lambda m: any(True for _ in m.parameters(recurse=False)))


def _run(
    model: nn.Module, state: Mapping[str, Tensor], probes: Tensor, mode: str, wanted: Callable[[nn.Module], bool]
) -> list[tuple[str, nn.Module, Tensor]]:
    """The wanted modules in the order in which they ran, with their inputs, in float64."""
    seen: list[tuple[str, nn.Module, Tensor]] = []

    def record(name: str) -> Callable[..., None]:
        return lambda module, inputs, _output: seen.append((name, module, inputs[0].detach()))

    handles = [m.register_forward_hook(record(n)) for n, m in model.named_modules() if wanted(m)]
    try:
        with simulating(model, mode), torch.no_grad():
            functional_call(model, widened(model, state), (probes,))
    finally:
        for handle in handles:
            handle.remove()
    return seen


def widened(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the model's parameters and buffers in float64, with `state` in their place where it names them."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers()), **state}
    return {k: v.detach().double() if v.is_floating_point() else v.clone() for k, v in own.items()}


def _copies(
    before: list[tuple[str, nn.Module]], channels: int, lift: float, mode: str, slot: Slot | None
) -> tuple[dict[str, Tensor], float]:
    """State that makes every layer before the linear one pass its input on, and what has been added to the pixels."""
    state: dict[str, Tensor] = {}
    used, width, shift = channels, channels, 0.0
    if slot is not None:
        state, used, width, shift = _first_slot(before, channels, lift, slot)
        before = before[1:]
    for name, module in before:
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            if isinstance(module, nn.Linear):
                state[f"{name}.weight"], used = _spaced(module, module.in_features * used // width)
                width = module.out_features
            else:
                state[f"{name}.weight"], used = _one_hot(module, used)
                width = module.out_channels
            if module.bias is not None:
                state[f"{name}.bias"] = torch.full_like(module.bias, lift if shift == 0.0 else 0.0)
                shift = shift or lift
        elif isinstance(module, _BatchNorm) and mode == "eval" and module.running_mean is not None:
            state |= _identity_norm(name, module)
        else:
            raise RequirementError(
                f"Layer '{name}' ({type(module).__name__}) stands before the hidden linear layer and cannot be made to "
                "pass its input on by choosing parameters" + _because(module)
            )
    return state, shift


def _because(module: nn.Module) -> str:
    if isinstance(module, _BatchNorm):
        return " while it normalises by the batch."
    return ", since it normalises every example by its own size." if isinstance(module, MIXING) else "."


def check_reads_examples(name: str, read: Tensor) -> None:
    """Refuse a linear layer that reads the tokens of an example one by one. Raises: RequirementError."""
    if read.ndim != 2:
        raise RequirementError(
            f"The hidden linear layer '{name}' is applied to {read.shape[1]} tokens of every example, and its gradient "
            "sums over them, so its rows measure no whole image."
        )


def _first_slot(
    before: list[tuple[str, nn.Module]], channels: int, lift: float, slot: Slot
) -> tuple[dict[str, Tensor], int, int, float]:
    """State of the first convolution that fills one slot, the channels in use and in all, and what it adds to pixels.

    Raises: RequirementError when there is no such convolution, or it has too few channels for so many slots.
    """
    name, module = before[0] if before else ("", None)
    if not isinstance(module, nn.Conv2d) or module.groups != 1 or module.bias is None:
        raise RequirementError(
            "Clients are told apart by kernels of a first convolution with bias, which is not there."
        )
    kernel, copies = _one_hot(module, channels)
    size = min(copies, module.out_channels // slot.of - 1)
    if size < 1:
        raise RequirementError(
            f"Layer '{name}' has {module.out_channels} channels; for {slot.of} clients at least {2 * slot.of} are "
            f"needed, and {(channels + 1) * slot.of} to pass colours on."
        )
    start = slot.number * (size + 1)
    weight, bias = torch.zeros_like(kernel), torch.zeros_like(module.bias)
    weight[start : start + size] = slot.gain * kernel[:size]
    bias[start : start + size] = slot.gain * lift
    bias[start + size] = slot.gain
    return {f"{name}.weight": weight, f"{name}.bias": bias}, slot.of * (size + 1), module.out_channels, lift


def _one_hot(module: nn.Conv2d, used: int) -> tuple[Tensor, int]:
    """A kernel that copies the first `used` channels, at every offset within its stride that its channels allow."""
    kernel = torch.zeros_like(module.weight)
    height, width = (min(s, k) for s, k in zip(module.stride, module.kernel_size))
    middle = [min(k // 2, k - 1) for k in module.kernel_size]
    wanted = [
        (channel, middle[0] + dy, middle[1] + dx)
        for dy, dx in product(range(height), range(width))
        for channel in range(min(used, module.in_channels))
        if middle[0] + dy < module.kernel_size[0] and middle[1] + dx < module.kernel_size[1]
    ][: module.out_channels]
    for out, (channel, y, x) in enumerate(wanted):
        kernel[out, channel, y, x] = 1.0
    return kernel, len(wanted)


def _spaced(module: nn.Linear, features: int) -> tuple[Tensor, int]:
    """A weight that copies as many of the first `features` inputs as there are rows, evenly spaced."""
    weight = torch.zeros_like(module.weight)
    rows = torch.arange(min(len(weight), features), device=weight.device)
    weight[rows, rows * features // len(rows)] = 1.0
    return weight, len(rows)


def _identity_norm(name: str, module: _BatchNorm) -> dict[str, Tensor]:
    assert module.running_mean is not None
    assert module.running_var is not None
    state = {
        f"{name}.running_mean": torch.zeros_like(module.running_mean),
        f"{name}.running_var": torch.full_like(module.running_var, 1 - module.eps),
    }
    if module.affine:
        state |= {f"{name}.weight": torch.ones_like(module.weight), f"{name}.bias": torch.zeros_like(module.bias)}
    return state


def _arrivals(
    model: nn.Module, state: Mapping[str, Tensor], probes: Tensor, shift: float, gain: float, layer: str, mode: str
) -> tuple[Tensor, Tensor]:
    """(feature,) which pixel each input of `layer` is in every probe, times `gain`, or -1; and whether it is `gain`."""
    target = model.get_submodule(layer)
    (_, _, read), *_ = _run(model, state, probes, mode, lambda module: module is target)
    constant = (read.flatten(1) == gain).all(0)
    flat, read = probes.flatten(1), read.flatten(1) / gain - shift
    order = flat[0].argsort()
    slot = torch.searchsorted(flat[0][order].contiguous(), read[0].contiguous()).clamp(0, len(order) - 1)
    pixel = torch.full_like(slot, -1)
    for near in (slot, (slot - 1).clamp_min(0)):
        guess = order[near]
        same = (flat[:, guess] - read).abs().amax(0) < 1e-9 * (1 + flat.abs().max())
        pixel = torch.where(same & (pixel < 0), guess, pixel)
    return pixel, constant & (pixel < 0)


def _nearest(pixel: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(pixel,) the feature that shows each pixel of the image, or the nearest pixel that arrives."""
    read = (pixel >= 0).nonzero()[:, 0]
    grid = torch.cartesian_prod(*[torch.arange(side, dtype=torch.float32) for side in shape]).to(pixel.device)
    # Another channel of the same place is taken to be as far as two pixels within the channel.
    grid[:, 0] *= OTHER_CHANNEL
    known = grid[pixel[read]]
    nearest = [torch.cdist(some, known).argmin(1) for some in grid.split(512)]
    return read[torch.cat(nearest)]
