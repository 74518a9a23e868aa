"""What the attack reads of a graph network: its layers, its read-out, and the row space that each gradient shows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from invertigo.attacks.subspace import Subspace, noise_singular_value, row_space
from invertigo.models.graph_layers import GraphConvolution
from invertigo.models.graph_network import GraphNetwork
from invertigo.types import Observation, RequirementError

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Anatomy:
    """A graph network in float64 beside the gradient of each of its parameters.

    `spans[k]` is the row space in which the inputs of layer `k` show themselves: `inputs` themselves for attention,
    their neighbourhood means for a convolution (`mixes`). `spans[-1]` is that of the read-out's rows.
    """

    model: GraphNetwork
    gradients: dict[str, Tensor]
    spans: tuple[Subspace, ...]
    noise: float | None

    @property
    def depth(self) -> int:
        """Number of message-passing layers."""
        return len(self.model.layers)

    def mixes(self, layer: int) -> bool:
        """The gradient of that layer shows neighbourhood means rather than the nodes' own inputs."""
        return layer < self.depth and isinstance(self.model.message_layers[layer], GraphConvolution)

    def gradient(self, parameter: Tensor | None) -> Tensor | None:
        """The gradient of one of the model's parameters, in float64."""
        return next((self.gradients[n] for n, p in self.model.named_parameters() if p is parameter), None)

    def scores(self) -> Float[Tensor, " label"] | None:
        r"""$\sum \partial L / \partial \mathrm{logit}$: the gradient of the read-out's last bias."""
        last = linears(self.model.readout)[-1]
        return None if last.bias is None else self.gradient(last.bias)


def linears(readout: nn.Module) -> list[nn.Linear]:
    """The linear layers of a read-out, first to last."""
    return [module for module in readout.modules() if isinstance(module, nn.Linear)]


def dissect(observation: Observation, model: GraphNetwork, noise: float | None) -> Anatomy:
    """The anatomy of the observed model, on the processor: bases are made where the gradient lies, and are small.

    Args:
        model: the observation's model in float64 with the observed parameters, in evaluation mode, from `in_double`.
        noise: standard deviation of the noise on every entry of the gradient, when known.

    Raises: RequirementError when the update holds no gradient to read.
    """
    gradients = single_gradient(observation)
    precise = {name: tensor.double().cpu() for name, tensor in gradients.items()}
    rounded = {id(p): gradients[n] for n, p in model.named_parameters() if n in gradients}
    names = {id(p): n for n, p in model.named_parameters()}
    weights = [layer.weight for layer in model.message_layers] + [linears(model.readout)[0].weight]
    spans = []
    for number, weight in enumerate(weights):
        gradient = rounded.get(id(weight))
        if gradient is None or not bool(gradient.any()):
            where = f"layer {number}" if number < len(model.layers) else "the read-out"
            raise RequirementError(f"The update holds no gradient of the weight of {where}, so its inputs stay hidden.")
        _refuse_hidden(observation, names[id(weight)])
        std = _rounding(observation, weight) if noise is None else noise
        level = None if std is None else noise_singular_value(std, gradient.shape)
        spans.append(row_space(gradient, noise=level).cpu())
    return Anatomy(model, precise, tuple(spans), noise)


def _refuse_hidden(observation: Observation, name: str) -> None:
    """Whole rows of a weight's gradient may be hidden: the others span the same. Raises: RequirementError."""
    view = observation.knowledge.view
    mask = None if view is None or view.visible is None else view.visible.get(name)
    if mask is None:
        return
    shown = mask.flatten(1) > 0
    torn = shown.any(1) & ~shown.all(1)
    if bool(torn.any()) or not bool(shown.any()):
        raise RequirementError(
            f"The defense hides {int((~shown).sum())} of the {shown.numel()} entries of the gradient of '{name}'; with "
            "rows that are not whole it has no row space to check candidates against. Where whole rows are hidden, "
            "attack 'grain' reads the others."
        )


def in_double(model: M, observed: Mapping[str, Tensor]) -> M:
    """A float64 copy of the model with the observed parameters, in evaluation mode, on the processor.

    All else is shared with the model, which is left as it is. As `copy.deepcopy`, in a tenth of the time.
    """
    made: dict[int, nn.Module] = {}
    kept: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        value = observed.get(name, parameter).detach().double().cpu()
        kept[id(parameter)] = nn.Parameter(value, parameter.requires_grad)

    def copied(module: nn.Module) -> nn.Module:
        if id(module) not in made:
            new = made[id(module)] = copy.copy(module)
            new.__dict__.update({n: d.copy() for n, d in module.__dict__.items() if isinstance(d, dict)})
            new._parameters = {n: p if p is None else kept[id(p)] for n, p in module._parameters.items()}
            new._buffers = {n: b if b is None else _in_double(b) for n, b in module._buffers.items()}
            new._modules = {n: m if m is None else copied(m) for n, m in module._modules.items()}
        return made[id(module)]

    return cast(M, copied(model).eval())


def _in_double(buffer: Tensor) -> Tensor:
    return buffer.double().cpu() if buffer.is_floating_point() else buffer.cpu()


def single_gradient(observation: Observation) -> dict[str, Tensor]:
    """The gradient behind the update. Raises: RequirementError after several local steps."""
    local, sent = observation.local, observation.update
    if sent.kind == "gradient":
        return dict(sent.tensors)
    if (
        not local.linear
        or local.epochs > 1
        or local.momentum
        or (local.batch_size or 10**9) < (observation.num_examples or 1)
    ):
        raise RequirementError(
            "Attack 'grain' reads the row spaces of one gradient, but this client took several local steps (or used "
            "momentum, Adam or a penalty), whose sum mixes several models' row spaces."
        )
    return {name: -tensor / local.learning_rate for name, tensor in sent.tensors.items()}


def _rounding(observation: Observation, weight: Tensor) -> float | None:
    """Noise of a gradient read off two parameters, each of them rounded; None where the gradient itself was sent."""
    if observation.update.kind == "gradient":
        return None
    rounding = torch.finfo(next(iter(observation.parameters.values())).dtype).eps
    return rounding * float(weight.detach().abs().max()) / observation.local.learning_rate
