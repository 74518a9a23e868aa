"""What a watched block must hold: hooks to hang on, a training step, and all that the client trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from invertigo.federation.recorder import Recorder
from invertigo.types import InvalidValueError, RequirementError

WRITE = (
    "An audit of a part would call safe what the rest gives away. Put everything that the client trains and sends into "
    "one module and one optimizer, watch(model, torch.optim.SGD(model.parameters(), lr=...), ...): a single step is "
    "recorded as its gradient, whatever the optimizer. Freeze what stays with the client (requires_grad_(False))"
)


def check_hooks(model: Any, optimizer: Any) -> None:
    """Refuse what no hook can be hung on. Raises: InvalidValueError."""
    wrong = {"a torch.nn.Module": hasattr(model, "register_forward_pre_hook")}
    wrong["one of torch.optim's (or a subclass)"] = hasattr(optimizer, "register_step_pre_hook")
    for (wanted, holds), given in zip(wrong.items(), (model, optimizer)):
        if not holds:
            raise InvalidValueError(
                f"`watch(model, optimizer, ...)` hangs hooks on {wanted}; a {type(given).__name__} has none. A step "
                "that is written without an optimizer can be audited as audit(model, loss_fn, batch), or watched with "
                "torch.optim.SGD(model.parameters(), lr=...) in place of the hand-made update."
            )


def check_recorded(recorder: Recorder) -> None:
    """Refuse a recording that holds no training step. Raises: InvalidValueError."""
    if not recorder.passes:
        raise InvalidValueError(
            "No forward pass of the watched model with gradients happened inside the `watch` block. Watch the very "
            "module that the training step calls (not a copy or a wrapper of it), and run the step inside the block."
        )
    if recorder.steps > recorder.calls:
        raise InvalidValueError(
            f"{type(recorder.optimizer).__name__} computes the gradient several times in one step, so there is no "
            "single gradient to watch. Watch a step of SGD or Adam."
        )
    if not recorder.stepped:
        raise InvalidValueError(
            "No optimizer step happened inside the `watch` block after a forward pass. Watch the optimizer that the "
            "step uses, and put `optimizer.step()` inside the block. A GradScaler skips the step when "
            "gradients overflow."
        )
    if recorder.empty:
        raise InvalidValueError(
            "The optimizer stepped without any gradient, so nothing would be sent: call loss.backward() inside the "
            "`watch` block, before optimizer.step()."
        )


def check_all_trained(recorder: Recorder) -> None:
    """Refuse a block that trained more than the watched optimizer's parameters of the watched model.

    Raises: RequirementError naming what is missing.
    """
    now = recorder.named()
    apart = [
        name
        for name, before in recorder.everything.items()
        if name not in recorder.parameters and now[name].requires_grad and not torch.equal(before, now[name])
    ]
    if apart:
        raise RequirementError(
            f"The block also trained {_listed(apart)}, which the watched optimizer does not hold (another "
            f"optimizer, or a change by hand). {WRITE}."
        )
    if recorder.outside:
        raise RequirementError(
            f"The watched optimizer also trained {_listed(recorder.outside)}, outside the watched model: a head or a "
            f"loss with parameters of its own. {WRITE}."
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more
