"""How many examples make up the update that is about to leave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.guards.d_snr import example_norms, measurable
from invertigo.guards.nulls import least_error
from invertigo.guards.registry import register
from invertigo.guards.signals import signals_of
from invertigo.types import INVERTIGO, Finding, Gate, History, LayerSignals, Local, Paper, Received

LEAST, RECENT = 8, 5
"""Examples that a share can be told of, and clean rounds that it is held against."""


@register
@dataclass(frozen=True, kw_only=True)
class FewExamples:
    r"""Share of the batch that makes up its gradient, $k = (\sum_i n_i)^2 / (B \sum_i n_i^2)$ for the norms $n_i$ of
    the examples' own gradients: 1 if all weigh the same, 1/B if one weighs all. An optimiser inverts an update of few.
    Fewer than eight examples are few anyway, and not looked at.

    Honest training gets there as well, once most examples cost nothing; that is a leak too, but it comes slowly and
    with a falling loss. A share counts as low when it is under `tolerated`, or under what the loss L entails: the sizes
    $u_i = 1 - p(y_i|x_i) \le 1$ of the slopes have $k \ge \bar u$, and by Fano's inequality a calibrated classifier of
    C classes with $L \le h(\bar u) + \bar u \log(C - 1)$ errs by no less than that $\bar u$. It is warned of unless it
    was reached in steps no larger than `drop`, or half as large again as an earlier one, and unless it is about what a
    model leaves that always answers with the batch's commonest class, as one does between its first rounds.

    Args:
        tolerated: share under which an update is one of few, for a client that knows at least two clean rounds.
        unknown: the same for a client that knows fewer: it may have joined a federation whose model fits already.
        slack: times the share that the loss entails, up to a half; gradient norms vary with more than the error.
        guess: times the share of examples outside the batch's commonest class; above this, answering with that class
            explains it.
        drop: part of the lowest of the last five shares to which an honest one may fall from round to round.
    """

    name: ClassVar[str] = "few_examples"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = frozenset({"probe"})

    tolerated: float = 1 / 6
    unknown: float = 1 / 12
    slack: float = 2.0
    guess: float = 0.75
    drop: float = 0.5

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        signals = signals_of(received, local)
        norms = whole_norms(list(signals.layers.values()))
        if norms is None or len(norms) < LEAST or not bool(norms.isfinite().all()):
            return ()
        share, past = participation(norms), [value for _, value in history.clean(self.name) if value > 0]
        bound = max(self.tolerated if len(past) > 1 else self.unknown, self._entailed(signals.loss, local))
        alarming = share <= min(bound, self.guess * outside(local)) and self._sudden(share, past)
        count = max(1, round(share * len(norms)))
        top = norms.argsort(descending=True)[:count].tolist() if alarming else []
        message = f"The gradient is made up as by {count} of {len(norms)} examples"
        message += f", after {past[-1] * len(norms):.0f} in the last round." if past else "."
        action = (
            "Do not send it as it is: clip each example's gradient and add noise, or leave these examples out. An "
            "optimiser inverts an update of so few, whoever asks for it."
        )
        return (
            Finding(
                self.name, self.gate, "leak", share, None, message, action, examples=tuple(sorted(top)), of=len(norms),
                alarming=alarming,
            ),
        )  # fmt: skip

    def _entailed(self, loss: float, local: Local) -> float:
        classes = local.task.num_classes or 1
        return min(0.5, self.slack * least_error(loss, classes)) if math.isfinite(loss) and classes > 1 else 0.0

    def _sudden(self, share: float, past: list[float]) -> bool:
        """It fell faster than it ever did in this client's clean rounds."""
        if not past:
            return True
        falls = [math.log(before / after) for before, after in pairwise(past)]
        honest = max(-math.log(self.drop), *(1.5 * fall for fall in falls), 0.0)
        return math.log(min(past[-RECENT:]) / share) > honest


def outside(local: Local) -> float:
    """Share of the batch outside its commonest class; 1 where examples have no class."""
    target = local.batch.fields.get(local.task.domain.target) if local.batch is not None else None
    if target is None or target.ndim != 1 or target.is_floating_point():
        return 1.0
    return 1 - int(target.unique(return_counts=True)[1].max()) / len(target)


def whole_norms(layers: list[LayerSignals]) -> Float[Tensor, " example"] | None:
    """Norms of the examples' own gradients over all linear and convolutional layers; None where there are none."""
    squares = [
        example_norms(layer).double().square() + _bias_squares(layer) for layer in layers if measurable(layer.module)
    ]
    return torch.stack(squares).sum(0).sqrt() if squares else None


def participation(norms: Float[Tensor, " example"]) -> float:
    r"""$(\sum_i n_i)^2 / (B \sum_i n_i^2)$, from 1/B to 1; 1 where all are zero."""
    squares = float(norms.square().sum())
    return float(norms.sum()) ** 2 / (len(norms) * squares) if squares > 0 else 1.0


def _bias_squares(layer: LayerSignals) -> Tensor:
    if getattr(layer.module, "bias", None) is None:
        return torch.zeros(len(layer.slopes), dtype=torch.float64, device=layer.slopes.device)
    linear = isinstance(layer.module, torch.nn.Linear)
    places = tuple(range(1, layer.slopes.ndim - 1)) if linear else tuple(range(2, layer.slopes.ndim))
    slopes = layer.slopes.double()
    return (slopes.sum(places) if places else slopes).square().sum(1)
