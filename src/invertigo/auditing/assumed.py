"""What an audit takes as given: a second input that whoever attacks knows, parameters that are not trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from invertigo.auditing.record import FlagRecord
from invertigo.types import Batch, ConfigurationError, Domain


def beside(domain: Domain, truth: Batch, *, described: bool) -> tuple[str, ...]:
    """Fields of the batch that no attack rebuilds or infers.

    Raises: ConfigurationError when there are any and no step is `described` that reads them.
    """
    own = {*domain.example_shapes(), *getattr(domain, "reads", ()), domain.inputs, domain.target}
    others = tuple(name for name in truth.fields if name not in own)
    if others and not described and getattr(domain, "step", None) is None:
        raise ConfigurationError(
            f"The batch holds {', '.join(map(repr, others))}, which loss_fn(model({domain.inputs}), {domain.target}) "
            "does not read. Say what the step does with it: step=lambda call, fields: "
            f"loss_fn(call(fields['{domain.inputs}'], fields['{others[0]}']), fields['{domain.target}'])."
        )
    return others


def assumed_known(names: Sequence[str]) -> Iterator[FlagRecord]:
    """The remark that these fields were told to every attack."""
    if names:
        listed = ", ".join(f"'{name}'" for name in names)
        yield FlagRecord(
            code="fields_assumed_known",
            severity="warning",
            message=f"The step also reads {listed} of each example, which every attack was told: what was rebuilt is "
            "what somebody who knows these can rebuild, and they were not rebuilt themselves.",
            remedy="If they are private too, describe them with a domain of your own that rebuilds them.",
        )


def trained_elsewhere(names: Sequence[str]) -> Iterator[FlagRecord]:
    """The remark that gradients were computed which the watched optimizer does not use."""
    if names:
        listed = ", ".join(f"'{name}'" for name in names[:3]) + (
            f" and {len(names) - 3} more" if len(names) > 3 else ""
        )
        yield FlagRecord(
            code="parameters_unwatched",
            severity="warning",
            message=f"The step also computed gradients of {listed}, which the watched optimizer does not hold: if the "
            "client trains them by another optimizer, it sends more than was audited.",
            remedy="Freeze what is not trained (requires_grad_(False)), or watch one optimizer that holds everything.",
        )
