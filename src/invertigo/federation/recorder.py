"""Watch an unmodified training step through hooks, and write down what an audit needs of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from invertigo.federation.clipping import Change, change_of
from invertigo.federation.functional import batchnorm_statistics
from invertigo.federation.modes import sensitive_layers
from invertigo.federation.passes import Pass, Term, read_call
from invertigo.federation.randomness import RandomState
from invertigo.types import bare

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
        F.multilabel_margin_loss,
        F.multilabel_soft_margin_loss,
        F.soft_margin_loss,
        F.kl_div,
        F.poisson_nll_loss,
    }
)


@dataclass(frozen=True)
class Stepped:
    """One optimizer step: its settings by group, and how the gradients were changed between backward and step.

    Of the first and the last step also the parameters before it (`values`), the gradients as the backward passes had
    left them (`raw`), and those that the optimizer `used`.
    """

    settings: dict[str, list[Any]]
    change: Change
    values: Mapping[str, Tensor] = field(default_factory=dict)
    raw: Mapping[str, Tensor] = field(default_factory=dict)
    used: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass
class Recorder:
    """Everything the hooks saw, in order. `gradients` are those of the first optimizer step, by parameter name."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    passes: list[Pass] = field(default_factory=list)
    stepped: list[Stepped] = field(default_factory=list)
    parameters: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)
    everything: dict[str, Tensor] = field(default_factory=dict)
    """All parameters of the model before the first step, also those that the optimizer does not hold."""
    outside: list[str] = field(default_factory=list)
    """Shapes of what the optimizer trained beside parameters of the model."""
    unwatched: list[str] = field(default_factory=list)
    """Parameters of the model that got gradients and that the optimizer does not hold."""
    own: dict[str, nn.Parameter] = field(default_factory=dict)
    """The model's parameters when the block began: `functional_call` puts others in their place while it runs."""
    left: dict[str, Tensor] = field(default_factory=dict)
    """The gradients as the latest backward pass left them."""
    warm: bool = False
    empty: bool = False
    calls: int = 0
    inside: int = 0
    """How deep in calls of `step` the optimizer is: one that extends another's calls that one's."""
    running: bool = False

    @property
    def steps(self) -> int:
        """Optimizer steps taken so far."""
        return len(self.stepped)

    @property
    def gradients(self) -> Mapping[str, Tensor]:
        """What the optimizer used in its first step."""
        return self.stepped[0].used

    def before_forward(self, _model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Forward pre-hook of the model: passes without gradients (evaluation) are not training and are ignored."""
        if not torch.is_grad_enabled():
            return
        tensors, left, right = read_call(self.model, args, kwargs)
        if not tensors:
            return
        if not self.passes:
            _snapshot(self)
        state, kind = RandomState.now(self.model.parameters()), next(iter(tensors.values())).device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        self.passes.append(Pass(tensors, left, right, self._mode(), self.steps, state, precision))
        self.running = True

    def after_forward(self, seen: Mapping[str, tuple[Tensor, Tensor]], output: Any) -> None:
        """Forward hook of the model: keep the pass's batch statistics and what tells its outputs apart."""
        self.running = False
        if not self.passes or not torch.is_grad_enabled():
            return
        self.passes[-1].statistics = {k: (m.detach().clone(), v.detach().clone()) for k, (m, v) in seen.items()}
        self.passes[-1].returned(output)

    def saw_target(self, target: Any) -> None:
        """The loss was called with `target`: it belongs to the latest forward pass that has none of that size yet."""
        if not self.passes or not isinstance(target, Tensor) or target.ndim == 0 or not torch.is_grad_enabled():
            return
        last = self.passes[-1]
        # One target an example, or one a node where a mask says which places of the examples hold nodes.
        sizes = {len(last.inputs), *(int(mask.sum()) for mask in last.others if mask.dtype == torch.bool)}
        if last.target is None and target.shape[0] in sizes:
            last.target = target.detach().clone()

    def saw_loss(self, function: Callable, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """One of PyTorch's losses was called: on an output of the latest pass that it was called on, if on any."""
        given = {**dict(zip(("input", "target"), args)), **kwargs}
        target = given.get("target")
        self.saw_target(target)
        if not torch.is_grad_enabled() or not isinstance(target, Tensor):
            return
        for read in reversed(self.passes):
            place = read.place(given.get("input"))
            if place is not None:
                rest = {k: _kept(v) for k, v in kwargs.items() if k not in ("input", "target")}
                term = Term(function, place, target.detach().clone(), tuple(map(_kept, args[2:])), rest)
                read.terms.append(term)
                return

    def saw_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Any function of PyTorch was called after a forward pass."""
        if self.passes and not self.running and self.passes[-1].step == self.steps and torch.is_grad_enabled():
            for leaf in pytree.tree_leaves((args, kwargs)):
                self.passes[-1].offer(leaf)

    def saw_backward(self, name: str, parameter: Tensor) -> None:
        """A backward pass has added to a parameter's gradient."""
        if self.passes and parameter.grad is not None:
            self.left[name] = parameter.grad.detach().clone()

    def before_step(self, _optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Step pre-hook of the optimizer: the gradients it is about to use, or a closure that will make them."""
        self.inside += 1
        if self.inside > 1:
            return None
        self.calls += 1
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._step()
            return None

        def watched() -> Any:
            with torch.enable_grad():
                loss = closure()
            self._step()
            return loss

        return (args[:1], {**kwargs, "closure": watched})

    def after_step(self, *_: Any) -> None:
        """Step post-hook of the optimizer."""
        self.inside -= 1

    def _step(self) -> None:
        if not self.passes:
            return
        named = self.trained()
        if self.steps == 0:
            self.outside = self._outside()
            self.unwatched = [name for name in self.left if name not in named]
            self.empty = all(p.grad is None for p in named.values())
            self.warm = any(v is not None for state in self.optimizer.state.values() for v in state.values())
        scale = getattr(self.optimizer, "grad_scale", None)  # set by GradScaler for fused optimizers
        used = {n: torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for n, p in named.items()}
        used = used if scale is None else {n: g / scale for n, g in used.items()}
        # `autograd.grad` and `torch.func.grad` run no backward hook: what they gave stands where the optimizer read it.
        raw = {n: self.left.get(n, torch.zeros_like(g)) for n, g in used.items()} if self.left else used
        settings = {k: [g.get(k) for g in self.optimizer.param_groups] for k in _SETTINGS}
        values = {n: p.detach().clone() for n, p in named.items()}
        if self.steps > 1:
            self.stepped[-1] = Stepped(self.stepped[-1].settings, self.stepped[-1].change)
        self.stepped.append(Stepped(settings, change_of(raw, used), values, raw, used))
        self.left = {}

    def trained(self) -> dict[str, nn.Parameter]:
        """The model's parameters that the optimizer trains, by name."""
        own = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        return {n: p for n, p in self.named().items() if p.requires_grad and id(p) in own}

    def named(self) -> dict[str, nn.Parameter]:
        """The model's parameters by name."""
        return {**dict(self.model.named_parameters()), **self.own}

    def _outside(self) -> list[str]:
        own = {id(p) for p in self.named().values()}
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        return [f"a tensor {tuple(p.shape)}" for p in held if id(p) not in own and p.grad is not None]

    def _mode(self) -> str | None:
        layers = list(sensitive_layers(self.model).values()) or [self.model]
        modes = {layer.training for layer in layers}
        return None if len(modes) > 1 else ("train" if modes.pop() else "eval")


@torch.compiler.disable()  # a model that was compiled in place has its hooks traced with it
def _snapshot(recorder: Recorder) -> None:
    recorder.everything = {name: p.detach().clone() for name, p in recorder.named().items()}
    recorder.parameters = {name: recorder.everything[name] for name in recorder.trained()}
    recorder.buffers = {name: b.detach().clone() for name, b in recorder.model.named_buffers()}


_SETTINGS = (
    "lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "betas", "eps", "amsgrad",
    "decoupled_weight_decay", "params",
)  # fmt: skip


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


class _TargetMode(TorchFunctionMode):
    """Sees calls of PyTorch's loss functions, whoever makes them, and passes them on unchanged."""

    def __init__(self, recorder: Recorder, loss: Callable | None) -> None:
        super().__init__()
        self.recorder, self.loss = recorder, loss

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _LOSSES:
            self.recorder.saw_loss(func, args, kwargs)
        elif func is self.loss:
            self.recorder.saw_target(args[1] if len(args) > 1 else kwargs.get("target"))
        result = func(*args, **kwargs)
        if not getattr(func, "__name__", "").startswith("__get"):  # attributes such as `shape`
            self.recorder.saw_call(args, kwargs)
        return result


@contextmanager
def recording(model: nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Callable | None) -> Iterator[Recorder]:
    """Install the hooks for the duration of the block; they read and never write, and are always removed."""
    # Opacus' optimizer holds the one that steps, and its hooks see what is really applied.
    optimizer = getattr(optimizer, "original_optimizer", optimizer)
    recorder = Recorder(bare(model), optimizer, own=dict(bare(model).named_parameters()))
    with ExitStack() as stack:
        seen = stack.enter_context(batchnorm_statistics(recorder.model))
        handles: list[Any] = [
            model.register_forward_pre_hook(recorder.before_forward, with_kwargs=True),
            model.register_forward_hook(lambda _m, _a, output: recorder.after_forward(seen, output)),
            optimizer.register_step_pre_hook(recorder.before_step),
            optimizer.register_step_post_hook(recorder.after_step),
        ]
        for name, parameter in recorder.model.named_parameters():
            if parameter.requires_grad:
                handles.append(parameter.register_post_accumulate_grad_hook(_noting(recorder, name)))
        if isinstance(loss_fn, nn.Module):
            handles.append(loss_fn.register_forward_pre_hook(_target_of_module(recorder), with_kwargs=True))
        for handle in handles:
            stack.callback(handle.remove)
        stack.enter_context(_TargetMode(recorder, loss_fn))
        yield recorder


def _noting(recorder: Recorder, name: str) -> Callable[[Tensor], None]:
    return lambda parameter: recorder.saw_backward(name, parameter)


def _target_of_module(recorder: Recorder) -> Callable[..., None]:
    def hook(_loss: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        recorder.saw_target(args[1] if len(args) > 1 else kwargs.get("target"))

    return hook
