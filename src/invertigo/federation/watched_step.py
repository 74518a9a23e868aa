"""A recorded training step as a scalar function of the model and the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from invertigo.federation.passes import Pass, Slot, Term, filled, same_call
from invertigo.types import Domain, RequirementError, StepLoss

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class WatchedStep:
    """`loss(model(*args, **kwargs), target)`, with the model called as it was called when it was watched.

    `names` maps the recorded arguments to fields of the batch; the other ones are `constants`. `losses` are functions
    of the output and of the fields, with their coefficients.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    names: Mapping[str, str]
    constants: Mapping[str, Tensor]
    losses: tuple[Callable[[Any, Mapping[str, Tensor]], Tensor], ...]
    coefficients: tuple[float, ...] = ()

    def __call__(self, call: Callable[..., Any], fields: Mapping[str, Tensor]) -> Tensor:
        """The scalar loss of a batch."""
        given = {slot: fields[name] for slot, name in self.names.items()} | dict(self.constants)
        output = call(*filled(self.args, given), **filled(dict(self.kwargs), given))
        weights = self.coefficients or (1.0,) * len(self.losses)
        terms = [
            loss(output, fields) if w == 1.0 else w * loss(output, fields) for loss, w in zip(self.losses, weights)
        ]
        return sum(terms[1:], terms[0])


@dataclass(frozen=True)
class Expression:
    """A way in which the loss of the recorded passes may have come about: one target a pass, and the step."""

    step: StepLoss | None
    terms: tuple[StepLoss, ...] = ()
    targets: tuple[Tensor, ...] = ()
    fields: tuple[Mapping[str, Tensor], ...] = field(default=())


def expressions(
    passes: Sequence[Pass], loss: Loss | None, domain: Domain, step: StepLoss | None
) -> Iterator[Expression]:
    """The ways that are worth trying, the likeliest first.

    The user's own `step`; a loss that the model returns; the user's loss of output and target; the sum of PyTorch's
    losses that were called on parts of the output, with unknown coefficients; the user's loss with another tensor that
    was read after the forward pass.
    """
    if not same_call(passes):
        raise RequirementError(
            "The passes of this step called the model in different forms. Watch a step that calls it in one form, or "
            "say how its loss is made: " + adaptor(passes[0], domain)
        )
    names, constants = _fields(passes, domain)
    shared = {"args": passes[0].args, "kwargs": passes[0].kwargs, "names": names, "constants": constants}
    plain = len(passes[0].tensors) == 1 and passes[0].args == (Slot(passes[0].primary),) and not passes[0].kwargs
    if step is not None:
        yield Expression(step, (step,), _known_targets(passes))
        return
    for place in passes[0].scalars:
        yield _alone(WatchedStep(**shared, losses=(_Returned(place),)), _known_targets(passes))
    targets = _known_targets(passes)
    own = getattr(domain, "step", None)
    if loss is not None and own is not None:
        yield Expression(None, (own(loss),), targets)
    if loss is not None and targets:
        given = WatchedStep(**shared, losses=(_Given(loss, domain.target),))
        yield Expression(None if plain else given, (given,), targets)
        if plain:  # a loss of each example, which the loop sums or averages itself
            yield Expression(given, (given,), targets)
    if all(p.terms for p in passes):
        yield from _sums(passes, shared, domain)
    if loss is None:
        return
    for targets in _other_targets(passes):
        given = WatchedStep(**shared, losses=(_Given(loss, domain.target),))
        yield Expression(None if plain else given, (given,), targets)


def fields_of(read: Pass, domain: Domain, target: Tensor | None) -> dict[str, Tensor]:
    """The fields of one pass: arguments of the model with a row an example, the target, what the user noted."""
    names, _ = _fields([read], domain)
    found = {name: read.tensors[slot] for slot, name in names.items()}
    if target is not None:
        found[domain.target] = target
    return found | read.notes


def adaptor(read: Pass, domain: Domain) -> str:
    """The line to write for a step that cannot be replayed, with this step's own fields."""
    names, _ = _fields([read], domain)
    given = {slot: f"fields['{name}']" for slot, name in names.items()}
    call = ", ".join(
        [*(_shown(a, given) for a in read.args), *(f"{k}={_shown(v, given)}" for k, v in read.kwargs.items())]
    )
    return (
        f"watch(..., step=lambda call, fields: loss_fn(call({call}), fields['{domain.target}'])), and inside the block "
        f"tape.note({domain.target}=...) for what the loss reads"
    )


@dataclass(frozen=True)
class _Given:
    loss: Loss
    target: str

    def __call__(self, output: Any, fields: Mapping[str, Tensor]) -> Tensor:
        return _scalar(self.loss(output, fields[self.target]))


@dataclass(frozen=True)
class _Returned:
    place: int

    def __call__(self, output: Any, fields: Mapping[str, Tensor]) -> Tensor:
        return _tensors(output)[self.place]


@dataclass(frozen=True)
class _Called:
    term: Term
    target: str

    def __call__(self, output: Any, fields: Mapping[str, Tensor]) -> Tensor:
        return _scalar(self.term(_tensors(output)[self.term.output], fields[self.target]))


def _scalar(loss: Tensor) -> Tensor:
    """The mean of a loss that has a value for each example; the factor that makes it a sum is found by the fit."""
    return loss.mean() if loss.ndim else loss


def _tensors(output: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def _alone(step: WatchedStep, targets: tuple[Tensor, ...]) -> Expression:
    return Expression(step, (step,), targets)


def _sums(passes: Sequence[Pass], shared: Mapping[str, Any], domain: Domain) -> Iterator[Expression]:
    """Losses on parts of the output; a target of another kind than the first becomes a field of its own."""
    kinds = [[(t.function, t.output, str(t.positional), str(t.named)) for t in p.terms] for p in passes]
    if any(kind != kinds[0] for kind in kinds):
        return
    extra: list[dict[str, Tensor]] = [{} for _ in passes]
    terms = []
    for number, term in enumerate(passes[0].terms):
        same = all(_equal(p.terms[number].target, p.terms[0].target) for p in passes)
        name = domain.target if same else f"{domain.target}_{number + 1}"
        for own, read in zip(extra, passes):
            if not same:
                own[name] = read.terms[number].target
        terms.append(WatchedStep(**shared, losses=(_Called(term, name),)))
    whole = WatchedStep(**shared, losses=tuple(t.losses[0] for t in terms))
    yield Expression(whole, tuple(terms), tuple(p.terms[0].target for p in passes), tuple(extra))


def _known_targets(passes: Sequence[Pass]) -> tuple[Tensor, ...]:
    """What is known to be the target of each pass: noted by the user, read by the model, or read by a loss."""
    found = [p.target if p.named_target is None else p.tensors[p.named_target] for p in passes]
    return tuple(t for t in found if t is not None) if all(t is not None for t in found) else ()


def _other_targets(passes: Sequence[Pass]) -> Iterator[tuple[Tensor, ...]]:
    for number in range(min(len(p.candidates) for p in passes)):
        yield tuple(p.candidates[number] for p in passes)
    yield tuple(p.inputs for p in passes)  # an autoencoder's


def _fields(passes: Sequence[Pass], domain: Domain) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The arguments that are fields of the batch, and those that are one for all examples.

    Raises: RequirementError when one of the latter changes from pass to pass.
    """
    first, reads = passes[0], getattr(domain, "reads", (domain.inputs,))
    slots = [first.primary, *(name for name in first.tensors if name != first.primary)]
    names = dict(zip(slots, reads)) if len(reads) > 1 else {first.primary: domain.inputs}
    constants: dict[str, Tensor] = {}
    for slot in slots:
        if slot in names:
            continue
        if all(p.tensors[slot].ndim and len(p.tensors[slot]) == len(p.inputs) for p in passes):
            taken = slot == first.named_target
            names[slot] = (
                domain.target if taken else slot if slot not in (domain.inputs, domain.target) else f"{slot}_read"
            )
        elif all(_equal(p.tensors[slot], first.tensors[slot]) for p in passes):
            constants[slot] = first.tensors[slot]
        else:
            raise RequirementError(
                f"The model's argument '{slot}' has no row for each example and changes from pass to pass, so it is "
                "neither a part of the batch nor of the model. Watch a single pass."
            )
    return names, constants


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def _shown(value: Any, given: Mapping[str, str]) -> str:
    return given.get(value.name, value.name) if isinstance(value, Slot) else repr(value)
