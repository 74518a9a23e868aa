"""A model file without a client: what its tensors alone tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from invertigo.guards.inspector import Inspector
from invertigo.guards.matrices import wide
from invertigo.guards.nulls import predictive_p
from invertigo.types import Finding, GuardVerdict, History, InvalidValueError, Local, Received, Task


def inspect_file(
    received: Received,
    task: Task | None,
    *,
    previous: Sequence[Received] = (),
    inspector: Inspector | None = None,
) -> GuardVerdict:
    """The gates that need no data, on a model, after `previous` ones of the same federation (oldest first).

    Without a task, the model's architecture is guessed from its tensors: weights of two dimensions are linear layers,
    of four are convolutions, in their order.

    Raises: InvalidValueError when nothing in the file looks like a layer.
    """
    inspector = inspector or Inspector()
    task = task or guessed_task(received)
    changed = [_of_other_form(earlier, received) for earlier in previous]
    if any(changed):
        found = _refused(next(filter(None, changed)))
        return GuardVerdict("block", (found,), (found,), round=len(previous), fingerprint=received.fingerprint)
    history = History()
    for number, earlier in enumerate(previous):
        verdict = inspector.inspect(earlier, history, Local(task=task, round=number), ("load", "train"))
        history = history.add(replace(verdict, decision="pass"))
    verdict = inspector.inspect(received, history, Local(task=task, round=len(previous)), ("load", "train"))
    steps = [*previous, received]
    if verdict.decision == "block" or len(steps) < 2:
        return verdict
    moved = frozen_but_one(steps[-2], received)
    sizes = [(n, _distance(a, b)) for n, (a, b) in enumerate(pairwise(steps))]
    if len(sizes) > 1:
        p = predictive_p(sizes[:-1], sizes[-1][1], floor=0.7)
        moved.append(
            Finding(
                "server_step", "train", "malice", sizes[-1][1], p,
                "The length of the server's step, as a logarithm, against its earlier steps.",
                "Ask other clients whether they received the same model.",
            )
        )  # fmt: skip
    decided = inspector.budget.decide((*verdict.observed, *moved), history.inspections)
    extra = [f for f, level in decided[len(verdict.observed) :] if level != "pass"]
    decision = "warn" if extra and verdict.decision == "pass" else verdict.decision
    return replace(
        verdict,
        decision=decision,
        findings=(*verdict.findings, *extra),
        observed=(*verdict.observed, *moved),
    )


def _of_other_form(before: Received, after: Received) -> str:
    """How the tensors differ in name, shape or dtype from those of an earlier round; empty where they do not."""
    old, new = (
        {name: f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for name, t in model.tensors.items()}
        for model in (before, after)
    )
    told = [
        f"'{n}' is {new.get(n, 'missing')}, was {old.get(n, 'missing')}"
        for n in sorted(old | new)
        if old.get(n) != new.get(n)
    ]
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")


def _refused(difference: str) -> Finding:
    return Finding(
        "architecture", "load", "defect", 1.0, None, f"The tensors are not those of an earlier round: {difference}.",
        "Do not load it. Ask the server's operator whether the model was changed, and start without --previous if so.",
        alarming=True,
    )  # fmt: skip


def frozen_but_one(before: Received, after: Received) -> list[Finding]:
    """Biases of a layer that move while every other tensor stands still bit by bit: hyperplane attacks."""
    names = [n for n, t in after.tensors.items() if t.is_floating_point() and n in before.tensors]
    moved = [n for n in names if not _equal(before.tensors[n], after.tensors[n])]
    alarming = len(names) > 3 and 0 < len(moved) <= 1
    told = f"Only '{moved[0]}' of {len(names)} tensors changed." if alarming else f"{len(moved)} tensors changed."
    action = "Skip the round: a server that aggregates changes every layer."
    layer = moved[0] if alarming else None
    return [
        Finding(
            "moved_layers", "train", "malice", float(len(moved)), None, told, action, layer=layer, alarming=alarming
        )
    ]


def guessed_task(received: Received) -> Task:
    """A task whose model has the received tensors; it can be looked at but not run."""
    from invertigo.domains import Images

    root = nn.Module()
    for name, tensor in received.tensors.items():
        *path, last = name.split(".")
        module = root
        for part in path:
            # Straight into the registers: a name may be that of a method, such as `forward`, or empty.
            if module._modules.get(part) is None:
                module._modules[part] = nn.Module()
            module = module._modules[part]
            assert module is not None
        module._buffers[last] = tensor.detach()
    layers = sum(_become_layers(parent) for parent in list(root.modules()))
    if layers == 0:
        raise InvalidValueError(
            f"None of the {len(received.tensors)} tensors looks like the weight of a linear or convolutional layer. "
            "Pass --model package.module:factory, so that the layers are known."
        )

    def no_loss(prediction: Tensor, target: Tensor) -> Tensor:
        raise InvalidValueError("A guessed model cannot be run; pass the model's factory.")

    return Task(root, no_loss, Images(shape=(1, 1, 1)))


def _become_layers(parent: nn.Module) -> int:
    """Replace children that hold a matrix or kernels called `weight` by layers of that form."""
    count = 0
    for name, child in list(parent._modules.items()):
        layer = None if child is None else _layer(child)
        if layer is not None:
            parent._modules[name] = layer
            count += 1
    return count


def _layer(child: nn.Module) -> nn.Module | None:
    """The layer that holds these tensors; None where they are not of one, or of whole numbers."""
    weight, bias = child._buffers.get("weight"), child._buffers.get("bias")
    if weight is None or set(child._buffers) - {"weight", "bias"} or child._modules:
        return None
    if not weight.is_floating_point() or weight.numel() == 0 or weight.ndim not in (2, 4):
        return None
    if bias is not None and (bias.shape != weight.shape[:1] or not bias.is_floating_point()):
        return None
    with torch.device("meta"):
        if weight.ndim == 2:
            layer: nn.Module = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        else:
            kernel = (weight.shape[2], weight.shape[3])
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, bias=bias is not None)
    for own, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None:
            layer._parameters[own] = nn.Parameter(torch.empty_like(tensor, device="meta"), requires_grad=False)
    return layer


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((wide(one) == wide(other)).all())


def _distance(before: Received, after: Received) -> float:
    squares = [
        (after.tensors[n].double() - t.double()).square().sum()
        for n, t in before.tensors.items()
        if t.is_floating_point() and n in after.tensors and after.tensors[n].shape == t.shape
    ]
    return math.log(max(float(sum(squares)) ** 0.5, 1e-30))
