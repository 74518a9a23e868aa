"""Why the simulated step is not the client's: each cause is a cheap hypothesis that is tried on the truth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from invertigo.federation.comparison import overall
from invertigo.federation.simulated import Replay, Simulated, explains, least_squares, verdict
from invertigo.types import InvertigoError

Tensors = Mapping[str, Tensor]
Hypothesis = Callable[[Simulated, Tensors], Iterator[str]]

PARALLEL = 0.999
"""Cosine from which two tensors count as parallel."""
LIKE = 0.95
"""Cosine from which an update looks like that of an optimizer."""
MOST = 32
"""Examples whose own gradients are tried."""


def likely_cause(step: Simulated, replayed: Tensors, until: float) -> str:
    """The first hypothesis that explains the received update, as a sentence; else where the gap lies.

    Args:
        replayed: the simulated update. until: value of `time.monotonic()` after which no further one is tried.
    """
    for hypothesis in HYPOTHESES:
        if time.monotonic() > until:
            break
        try:
            found = next(hypothesis(step, replayed), "")
        except (RuntimeError, ValueError, KeyError, TypeError, IndexError, InvertigoError):
            continue  # this hypothesis does not apply to this step
        if found:
            return found
    return _unknown(step, replayed)


def judged(step: Simulated) -> Replay:
    """The verdict of a step as another recipe would have it."""
    return verdict(step, step.quiet)


def _wrong_sign(step: Simulated, replayed: Tensors) -> Iterator[str]:
    flipped = verdict(step, {name: -tensor for name, tensor in replayed.items()})
    if flipped.status in ("exact", "scaled"):
        factor = -flipped.scale
        yield (
            f"the update has the wrong sign: it is {factor:.4g} times the simulated one. A difference `after - before` "
            f"read as a gradient is the gradient times minus the learning rate; divide the update by {factor:.4g}"
        )


def _value_clipping(step: Simulated, replayed: Tensors) -> Iterator[str]:
    bound = max(t.abs().max().item() for t in step.received.values())
    at_bound = sum(int((t.abs() == bound).sum()) for t in step.received.values())
    clipped = verdict(step, {name: t.clamp(-bound, bound) for name, t in replayed.items()})
    if at_bound > 1 and clipped.status in ("exact", "scaled"):
        yield f"the entries of the gradient were clipped by value at {bound:.4g} ({at_bound} entries stand there)"


def _layer_scales(step: Simulated, replayed: Tensors) -> Iterator[str]:
    """Clipping layer by layer, learning rates of parameter groups: parallel in each layer, of another length."""
    layers = [one for one in verdict(step, replayed).layers if step.received[one.name].any()]
    fitted = {one.name: one.scale * replayed[one.name] for one in layers if one.cosine > PARALLEL}
    if len(fitted) < max(2, len(layers)) or verdict(step, {**replayed, **fitted}).status != "exact":
        return
    low, high = min(one.scale for one in layers), max(one.scale for one in layers)
    yield (
        f"each layer was scaled on its own, by {low:.4g} to {high:.4g}: clipping layer by layer, or parameter groups "
        "with learning rates of their own"
    )


def _other_mode(step: Simulated, _replayed: Tensors) -> Iterator[str]:
    mode = "eval" if step.local.mode == "train" else "train"
    other = judged(step.changed(mode=mode))
    if other.status in ("exact", "scaled"):
        names = {"train": "training mode (model.train())", "eval": "inference mode (model.eval())"}
        yield f"the client computed in {names[mode]}; the attacks simulate {names[step.local.mode]}"


def _parameters_in_the_gap(step: Simulated, replayed: Tensors) -> Iterator[str]:
    """Weight decay, an L2 term: the gap is parallel to the parameters."""
    held = {name: step.observation.parameters[name] for name in step.received}
    scale, decay = least_squares(step.received, [replayed, held])
    if scale > 0 and decay and explains(step, [replayed, held], [scale, decay]):
        factor = "" if abs(scale - 1) < 1e-3 else f" (and a factor of {scale:.4g})"
        yield (
            f"the gap is {decay:.4g} times the parameters{factor}: weight decay, or an L2 or proximal term in the loss "
            "that the simulated step does not have"
        )


def _adam(step: Simulated, _replayed: Tensors) -> Iterator[str]:
    """Adam's first steps move every parameter by about the learning rate, along the sign of its gradient."""
    if step.local.optimizer != "sgd":
        return
    plain = {"sends": "difference", "momentum": 0.0, "dampening": 0.0, "nesterov": False, "weights": ()}
    sign = 1.0 if step.observation.update.kind == "difference" else -1.0
    near = overall(step.received, step.quiet)[1]
    for optimizer, name in (("adam", "Adam"), ("adamw", "AdamW")):
        other = {k: sign * t for k, t in step.changed(optimizer=optimizer, **plain).quiet.items()}
        if verdict(step, other).status in ("exact", "scaled"):
            yield f"the client's optimizer is {name}; state LocalTraining(optimizer='{optimizer}', ...)"
        elif overall(step.received, other)[1] > max(LIKE, near + 0.02):
            yield (
                f"the update looks like that of {name} (or another that normalises entries), with settings of "
                f"its own; state LocalTraining(optimizer='{optimizer}', betas=..., weight_decay=...)"
            )


def _proportional_losses(step: Simulated, _replayed: Tensors) -> Iterator[str]:
    """A loss of (N, 1) outputs against (N,) targets broadcasts to (N, N)."""
    task, target = step.observation.task, step.observation.task.domain.target
    values = step.truth.fields.get(target)
    if values is None or task.step_loss is not None:
        return
    for turned, words in ((values[:, None] if values.ndim == 1 else None, "(N,) targets"), (_column(values), "(N, 1)")):
        if turned is None:
            continue
        other = replace(step, truth=replace(step.truth, fields={**step.truth.fields, target: turned}))
        if judged(other).status in ("exact", "scaled"):
            yield (
                f"the client's loss met targets of shape {tuple(turned.shape)} where the truth holds "
                f"{tuple(values.shape)} {words}: one of the two broadcasts in the loss"
            )


def _micro_batches(step: Simulated, _replayed: Tensors) -> Iterator[str]:
    """Gradients accumulated over equal parts, each of which went through BatchNorm on its own."""
    count = len(step.truth)
    for parts in (k for k in (2, 3, 4, 8, 16, 32) if count % k == 0 and count // k >= 1):
        other = judged(step.changed(batch_sizes=(count // parts,) * parts))
        if other.status in ("exact", "scaled"):
            yield (
                f"the gradient was accumulated over {parts} parts of {count // parts} examples, each of which went "
                "through the model on its own; state LocalTraining(batch_sizes=...)"
            )


def _example_weights(step: Simulated, _replayed: Tensors) -> Iterator[str]:
    """Uneven micro-batches, class weights: a sum of the examples' gradients with unequal coefficients."""
    count = len(step.truth)
    if not 1 < count <= MOST or step.local.sends != "gradient":
        return
    alone = [replace(step, truth=step.truth.select([i])).update() for i in range(count)]
    weights = least_squares(step.received, alone)
    if explains(step, alone, weights):
        shown = ", ".join(f"{w:.4g}" for w in weights[:8]) + (", ..." if count > 8 else "")
        yield (
            f"the examples count unequally in the loss ({shown}; {1 / count:.4g} each in the simulated step): uneven "
            "micro-batches, class weights, or examples left out"
        )


def _other_steps(step: Simulated, _replayed: Tensors) -> Iterator[str]:
    """Another number of passes over the data than stated."""
    local = step.local
    if local.sends != "difference" or local.learning_rates:
        return
    for epochs in (1, 2, 3, 4, 5):
        if epochs == local.epochs:
            continue
        if judged(step.changed(epochs=epochs)).status == "exact":
            yield f"the client took {epochs} passes over its examples; the attacks simulate {local.epochs}"


HYPOTHESES: tuple[Hypothesis, ...] = (
    _wrong_sign,
    _other_mode,
    _value_clipping,
    _layer_scales,
    _adam,
    _parameters_in_the_gap,
    _proportional_losses,
    _micro_batches,
    _example_weights,
    _other_steps,
)


def _unknown(step: Simulated, replayed: Tensors) -> str:
    gaps = sorted(verdict(step, replayed).layers, key=lambda layer: -layer.relative_gap)
    off = [layer for layer in gaps if layer.unexplained]
    named = ", ".join(f"'{layer.name}' ({layer.relative_gap:.2g})" for layer in off[:3])
    more = f" and {len(off) - 3} more" if len(off) > 3 else ""
    whole = "every layer differs" if len(off) == len(gaps) else f"{len(off)} of {len(gaps)} layers differ"
    cosine = overall(step.received, replayed)[1]
    return f"{whole}, most of all {named}{more}; cosine {cosine:.3f}; no single cause that was tried explains it"


def _column(values: Tensor) -> Tensor | None:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else None
