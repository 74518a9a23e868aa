"""The update that is about to leave: how large it is, and what it shows of the client's own examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from invertigo.guards.nulls import predictive_p
from invertigo.guards.published import DETECTABILITY
from invertigo.guards.registry import register
from invertigo.guards.signals import signals_of
from invertigo.types import INVERTIGO, Finding, Gate, History, Local, Paper, Received, Update


@register
@dataclass(frozen=True, kw_only=True)
class UpdateJump:
    """Logarithm of the update's length against its values in the client's clean rounds (predictive t-test).

    Args:
        floor: deviation of the logarithm that is allowed for before there are rounds to learn it from.

    Source: the family of anomalous gradient dynamics (our reading); the test is ours.
    """

    name: ClassVar[str] = "update_jump"
    paper: ClassVar[Paper] = DETECTABILITY
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = frozenset({"update"})

    floor: float = 0.7

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        if local.update is None:
            return ()
        figure = math.log(max(local.update.norm, 1e-30))
        past = history.clean(self.name)
        p = predictive_p(past, figure, floor=self.floor) if past else None
        message = f"The update's length is {math.exp(figure):.3g}" + (
            f", {math.exp(figure - past[-1][1]):.3g} times that of round {past[-1][0]}." if past else "."
        )
        action = "Do not send it; the model makes some example's gradient dominate."
        return (Finding(self.name, self.gate, "malice", figure, p, message, action),)


@register
@dataclass(frozen=True, kw_only=True)
class SelfReading:
    r"""Read the update as an attacker would, and look for one's own examples in what comes out.

    Candidates are $g_{W,k} / g_{b,k}$ of every row and of differences of rows that are neighbours by bias, for each
    hidden linear layer that reads two-dimensional input; one that equals an example's input of the layer has been read
    off. It works on what really leaves: after several local steps, and after a defense.

    Args:
        close: distance from the example's own input that counts as reading it, as a part of that input's distance from
            the batch's mean.
        tolerated: share of the batch beyond which the update should not leave as it is.
    """

    name: ClassVar[str] = "self_reading"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = frozenset({"probe", "update"})

    close: float = 0.05
    tolerated: float = 0.35

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        best: Finding | None = None
        linear = [(n, s) for n, s in signals_of(received, local).layers.items() if isinstance(s.module, nn.Linear)]
        for name, signal in linear[:-1]:
            candidates = _candidates(received, local.update, name)
            if candidates is None or signal.inputs.ndim != 2:
                continue
            examples, rows = self._read(candidates, signal.inputs.to(candidates))
            share = len(examples) / len(signal.inputs)
            if best is None or share > best.statistic:
                message = f"{len(examples)} of {len(signal.inputs)} examples can be read off rows of '{name}'."
                action = "Do not send it as it is: train on more examples a step, or clip and add noise."
                best = Finding(
                    self.name, self.gate, "leak", share, None, message, action, layer=name, rows=tuple(rows),
                    examples=tuple(examples), of=len(signal.inputs), alarming=share > self.tolerated,
                )  # fmt: skip
        return () if best is None else (best,)

    def _read(self, candidates: Tensor, inputs: Tensor) -> tuple[list[int], list[int]]:
        distance = torch.cdist(candidates, inputs)
        # Where features hardly differ between examples, their mean is close to all of them and tells of none: what
        # counts is how far an example stands from the mean.
        own = inputs - inputs.mean(0) if len(inputs) > 1 else inputs
        hit = distance <= self.close * own.norm(dim=1).clamp_min(1e-12)
        return hit.any(0).nonzero()[:, 0].tolist(), hit.any(1).nonzero()[:, 0].tolist()


def _candidates(received: Received, update: Update | None, layer: str) -> Tensor | None:
    names = [f"{layer}.{part}" if layer else part for part in ("weight", "bias")]
    if update is None or not all(name in update.tensors for name in names):
        return None
    weight, bias = (update.tensors[name].double() for name in names)
    order = received.tensors[names[1]].argsort(stable=True)
    rows, edges = weight[order], bias[order]
    weight = torch.cat([weight, rows[1:] - rows[:-1]])
    bias = torch.cat([bias, edges[1:] - edges[:-1]])
    live = bias.abs() > 1e-6 * bias.abs().max().clamp_min(1e-30)
    return weight[live] / bias[live, None]
