"""Watch an unmodified training step through hooks, and write down what an audit needs of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from invertigo.federation.functional import batchnorm_statistics
from invertigo.federation.modes import sensitive_layers
from invertigo.types import InvalidValueError, bare

_LOSSES = frozenset(
    {
        F.cross_entropy,
        F.nll_loss,
        F.binary_cross_entropy,
        F.binary_cross_entropy_with_logits,
        F.mse_loss,
        F.l1_loss,
        F.smooth_l1_loss,
        F.huber_loss,
        F.multi_margin_loss,
        F.multilabel_soft_margin_loss,
        F.kl_div,
        F.poisson_nll_loss,
    }
)


@dataclass
class Pass:
    """One forward pass of the model in training: its input, the target its loss read, and its output's width.

    `others` are further tensors that the model read, in the order of its arguments.
    """

    inputs: Tensor
    mode: str | None
    step: int
    others: tuple[Tensor, ...] = ()
    target: Tensor | None = None
    width: int | None = None


@dataclass
class Recorder:
    """Everything the hooks saw, in order. `gradients` are those of the first optimizer step, by parameter name."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    passes: list[Pass] = field(default_factory=list)
    settings: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    statistics: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    warm: bool = False
    empty: bool = False

    @property
    def steps(self) -> int:
        """Optimizer steps taken so far."""
        return len(self.settings)

    def before_forward(self, _model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Forward pre-hook of the model: passes without gradients (evaluation) are not training and are ignored."""
        read = [a.detach().clone() for a in self._in_order(args, kwargs) if isinstance(a, Tensor)]
        if not read or not torch.is_grad_enabled():
            return
        if not self.passes:
            self._snapshot()
        self.passes.append(Pass(read[0], self._mode(), self.steps, tuple(read[1:])))

    def after_forward(self, seen: Mapping[str, tuple[Tensor, Tensor]], output: Any) -> None:
        """Forward hook of the model: keep the first pass's batch statistics and the output's width."""
        if not self.passes or not torch.is_grad_enabled():
            return
        if len(self.passes) == 1:
            self.statistics = {k: (m.detach().clone(), v.detach().clone()) for k, (m, v) in seen.items()}
        if isinstance(output, Tensor) and output.ndim in (2, 3):
            self.passes[-1].width = output.shape[-1]

    def saw_target(self, target: Any) -> None:
        """The loss was called with `target`: it belongs to the latest forward pass that has none of that size yet."""
        if not self.passes or not isinstance(target, Tensor) or target.ndim == 0 or not torch.is_grad_enabled():
            return
        last = self.passes[-1]
        # One target an example, or one a node where a mask says which places of the examples hold nodes.
        sizes = {len(last.inputs), *(int(mask.sum()) for mask in last.others if mask.dtype == torch.bool)}
        if last.target is None and target.shape[0] in sizes:
            last.target = target.detach().clone()

    def before_step(self, *_: Any) -> None:
        """Step pre-hook of the optimizer: the gradients it is about to use, after any clipping or unscaling."""
        if not self.passes:
            return
        own = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        named = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad and id(p) in own]
        if self.steps == 0:
            scale = getattr(self.optimizer, "grad_scale", None)  # set by GradScaler for fused optimizers
            grads = {n: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for n, p in named}
            self.gradients = grads if scale is None else {n: g / scale for n, g in grads.items()}
            self.empty = all(p.grad is None for _, p in named)
            self.warm = any("momentum_buffer" in state for state in self.optimizer.state.values())
        self.settings.append({k: [g.get(k) for g in self.optimizer.param_groups] for k in _SETTINGS})

    def _in_order(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        if not kwargs:
            return args
        try:
            return tuple(inspect.signature(self.model.forward).bind(*args, **kwargs).arguments.values())
        except (TypeError, ValueError):
            return (*args, *kwargs.values())

    def _snapshot(self) -> None:
        own = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        for name, p in self.model.named_parameters():
            if p.requires_grad and id(p) in own:
                self.parameters[name] = p.detach().clone()
        self.buffers = {name: b.detach().clone() for name, b in self.model.named_buffers()}

    def _mode(self) -> str | None:
        layers = list(sensitive_layers(self.model).values()) or [self.model]
        modes = {layer.training for layer in layers}
        return None if len(modes) > 1 else ("train" if modes.pop() else "eval")


_SETTINGS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")


class _TargetMode(TorchFunctionMode):
    """Sees calls of PyTorch's loss functions, whoever makes them, and passes them on unchanged."""

    def __init__(self, recorder: Recorder, loss: Callable) -> None:
        super().__init__()
        self.recorder, self.losses = recorder, _LOSSES | {loss}

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in self.losses:
            self.recorder.saw_target(args[1] if len(args) > 1 else kwargs.get("target"))
        return func(*args, **kwargs)


@contextmanager
def recording(model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Callable) -> Iterator[Recorder]:
    """Install the hooks for the duration of the block; they read and never write, and are always removed."""
    # Opacus' optimizer holds the one that steps, and its hooks see what is really applied.
    optimizer = getattr(optimizer, "original_optimizer", optimizer)
    recorder = Recorder(bare(model), optimizer)
    with ExitStack() as stack:
        seen = stack.enter_context(batchnorm_statistics(recorder.model))
        handles = [
            model.register_forward_pre_hook(recorder.before_forward, with_kwargs=True),
            model.register_forward_hook(lambda _m, _a, output: recorder.after_forward(seen, output)),
            optimizer.register_step_pre_hook(recorder.before_step),
        ]
        if isinstance(loss_fn, nn.Module):
            handles.append(loss_fn.register_forward_pre_hook(_target_of_module(recorder), with_kwargs=True))
        for handle in handles:
            stack.callback(handle.remove)
        stack.enter_context(_TargetMode(recorder, loss_fn))
        yield recorder


def _target_of_module(recorder: Recorder) -> Callable[..., None]:
    def hook(_loss: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        recorder.saw_target(args[1] if len(args) > 1 else kwargs.get("target"))

    return hook


def check_recorded(recorder: Recorder) -> None:
    """Refuse a recording that holds no training step. Raises: InvalidValueError."""
    if not recorder.passes:
        raise InvalidValueError(
            "No forward pass of the watched model with gradients happened inside the `watch` block. Watch the very "
            "module that the training step calls (not a copy or a wrapper of it), and run the step inside the block."
        )
    if not recorder.settings:
        raise InvalidValueError(
            "No optimizer step happened inside the `watch` block after a forward pass. Watch the optimizer that the "
            "step uses, and put `optimizer.step()` inside the block. A GradScaler skips the step when "
            "gradients overflow; an optimizer that computes them in a closure, as L-BFGS does, cannot be watched."
        )
    if recorder.empty:
        raise InvalidValueError(
            "The optimizer stepped without any gradient, so nothing would be sent: call loss.backward() inside the "
            "`watch` block, before optimizer.step()."
        )
