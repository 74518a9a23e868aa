"""Does a patch embedding with learnt positions give its input away?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from invertigo.attacks.dry_run import ERRORS, dry_run
from invertigo.attacks.exact.token_layer import find_token_layer
from invertigo.auditing.diagnosis import Finding
from invertigo.types import RequirementError, Task


def token_findings(task: Task, batch_size: int) -> Iterator[Finding]:
    """The position embedding's gradient is every token's cotangent, which solves the patch embedding's."""
    try:
        layer = find_token_layer(task.model, task.domain, run=partial(dry_run, task))
    except (RequirementError, *ERRORS):
        return
    named = dict(task.model.named_parameters())
    if not (named[layer.weight_name].requires_grad and named[layer.positions].requires_grad):
        return
    tokens, width = len(layer.rows), len(named[layer.weight_name])
    solved = tokens <= width
    fits = f"no more than their width of {width}: one image follows exactly by one linear solve (`token_solve`)."
    short = f"more than their width of {width}, so the patches of one image are not determined by it alone."
    one = (
        f"The gradient of '{layer.positions}' is the cotangent of each of {tokens} tokens, {fits if solved else short}"
    )
    several = f" Of {batch_size} images it is the sum, from which no image follows exactly." if batch_size > 1 else ""
    yield Finding(
        "position-tokens", "critical" if solved and batch_size == 1 else "warning", layer.name, one + several,
        "freeze the position embedding or the patch embedding, use fixed (sinusoidal) positions, or larger batches.",
    )  # fmt: skip
