"""Before loading: is this a model of ours at all, and the one that everybody else received?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from invertigo.guards.matrices import wide
from invertigo.guards.registry import register
from invertigo.types import INVERTIGO, Finding, Gate, History, Local, Paper, Received

NOTHING: frozenset[str] = frozenset()
REFUSE = "Do not load it. Ask the server's operator for the model that was agreed on."


@register
@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names, shapes and dtypes are those of the client's own model: a server may choose parameters, nothing else."""

    name: ClassVar[str] = "architecture"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "load"
    needs: ClassVar[frozenset[str]] = NOTHING

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        own = local.task.model.state_dict()
        problems = [f"'{name}' is missing" for name in own if name not in received.tensors]
        problems += [f"'{name}' is not in the client's model" for name in received.tensors if name not in own]
        for name, mine in own.items():
            sent = received.tensors.get(name)
            if sent is not None and sent.shape != mine.shape:
                problems.append(f"'{name}' is {tuple(sent.shape)}, not {tuple(mine.shape)}")
            elif sent is not None and sent.dtype != mine.dtype and "quantised" not in local.declared.looks:
                problems.append(f"'{name}' is {sent.dtype}, not {mine.dtype}")
        wrong = bool(problems)
        told = "; ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else "")
        message = f"The received tensors are not of the client's model: {told}." if problems else "Architecture fits."
        return (Finding(self.name, self.gate, "defect", float(len(problems)), None, message, REFUSE, alarming=wrong),)


@register
@dataclass(frozen=True, kw_only=True)
class FiniteValues:
    """No parameter is NaN or infinite."""

    name: ClassVar[str] = "finite_values"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "load"
    needs: ClassVar[frozenset[str]] = NOTHING

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        real = {n: t for n, t in received.tensors.items() if t.is_floating_point() or t.is_complex()}
        bad = {n: int((~torch.isfinite(t if t.is_complex() else wide(t))).sum()) for n, t in real.items()}
        bad = {name: count for name, count in bad.items() if count}
        first = next(iter(bad), "")
        message = f"'{first}' holds {bad[first]} NaN or Inf." if bad else "All values are finite."
        action = "Do not load it; training on it would give NaN. The federation may have diverged."
        return (
            Finding(
                self.name, self.gate, "defect", float(sum(bad.values())), None, message, action,
                layer=first or None, alarming=bool(bad),
            ),
        )  # fmt: skip


@register
@dataclass(frozen=True, kw_only=True)
class Broadcast:
    """The model is bit for bit the published one: a server that sends every client its own model is found out.

    Needs `Declared.fingerprint`: a hash from a bulletin board, a signed release, or other clients.
    """

    name: ClassVar[str] = "broadcast"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "load"
    needs: ClassVar[frozenset[str]] = frozenset({"fingerprint"})

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        known, own = local.declared.fingerprint, received.fingerprint
        differs = known is not None and own != known.removeprefix("sha256:").lower()
        message = (
            f"The received model has the fingerprint {own[:12]}…, but {str(known)[:12]}… was announced."
            if differs
            else "The fingerprint is the announced one."
        )
        # Two different models have the same SHA-256 with a probability of 2^-256.
        p = 0.0 if differs else 1.0
        return (Finding(self.name, self.gate, "malice", float(differs), p, message, REFUSE),)
