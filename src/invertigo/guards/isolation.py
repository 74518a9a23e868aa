"""The send gate's measure of the leak: examples that can be read off the gradient, on the client's own truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from invertigo.guards.leak_policy import REFERENCE, Allowance, allowance
from invertigo.guards.readable import Leak, leaks, leaks_of, too_many
from invertigo.guards.reference import honest_models
from invertigo.guards.registry import register
from invertigo.guards.self_reading import read_back
from invertigo.guards.sheets import sheets
from invertigo.guards.signals import signals_of
from invertigo.types import INVERTIGO, Finding, Gate, History, Local, Paper, Received

ACTION = "Do not send it as it is: send it without these rows (`GuardVerdict.repaired`), or train on more examples."
HOW = {
    "rows": "alone in rows",
    "pairs": "alone in rows or in two rows taken together",
    "groups": "alone in rows that fire together",
    "peeling": "alone once others are subtracted",
    "update": "found in what is about to leave",
}
TRIES = 8


@register
@dataclass(frozen=True, kw_only=True)
class Isolation:
    r"""Examples that stand alone in rows of a parameter's gradient, in two rows together, or after peeling.

    The gradient of row k is $\sum_i \delta_{ik} a_i$ with slopes $\delta$ and inputs a. Where one example makes up nine
    tenths of it (20 dB), the row shows that example's input, and so does $g_k - r g_l$ where the slopes of k and l are
    parallel but for one example. No row is too small for that: only the rounding of the update's dtype hides anything.
    It holds for every parameter, found by what the forward pass does; what is not understood is tried example by
    example, and `unlooked` says what could not be.

    A batch leaks honestly as well. So the count is held against the client's clean rounds and against reference models,
    drawn and trained by the client itself. More than usual is taken out of the update (`Finding.drop`); more than
    `Allowance.most` is refused. Peeling is a chain reaction, whose length varies wildly between honest rounds, so it is
    stopped by what is taken out and is no reason to refuse.

    Source: the row-wise reading is that of the attacks it stands against; measure and policy are ours.
    """

    name: ClassVar[str] = "isolation"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = frozenset({"probe"})

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        signals = signals_of(received, local)
        examples = len(local.batch) if local.batch is not None else 0
        laid = sheets(signals.uses)
        found = leaks(laid, examples, rounding(local))
        if local.update is not None:
            found += read_back(laid, local.update, examples, rounding(local))
        unknown = [one for one in found if one.count > allowance(basis(one), history).usual]
        measured, told = self._reference(unknown, history, local) if unknown else ({}, ())
        return (
            tuple(
                self._finding(one, allowance(basis(one), history, measured.get(basis(one), ())), local) for one in found
            )
            + told
        )

    def _finding(self, one: Leak, allowed: Allowance, local: Local) -> Finding:
        excess = one.count > allowed.usual
        drop = dropped(one, allowed, rounding(local)) if excess else {}
        how = HOW[one.how] + (f", {one.decibels:.0f} dB at best" if one.how == "update" and one.count else "")
        message = (
            f"{one.count:.3g} of {one.of} examples' worth can be read off '{one.sheet.name}' ({how}); honest "
            f"models leak {allowed.usual}, and up to {allowed.most:.0f} is no reason to refuse."
        )
        return Finding(
            self.name, self.gate, "leak", one.count, None, message, ACTION,
            layer=one.sheet.parts[0].parameter, rows=one.rows, examples=one.examples, of=one.of,
            alarming=one.count > allowed.most and one.how != "peeling", level="block", figure=figure(one), drop=drop,
        )  # fmt: skip

    def _reference(self, unknown: list[Leak], history: History, local: Local) -> tuple[dict, tuple[Finding, ...]]:
        """What honest models leak, unless enough is known of models of this age."""
        rounds = max((v.figures.get(REFERENCE + "rounds", -1) for v in history.visits), default=-1)
        if rounds >= 0 and local.round <= 4 * rounds + 3:
            return {}, ()
        measured: dict[str, list[float]] = {}
        for model in honest_models(local, local.round):
            signals = signals_of(model, replace(local, signals=None))
            examples = len(local.batch) if local.batch is not None else 0
            for one in leaks(sheets(signals.uses), examples, rounding(local)):
                measured.setdefault(figure(one), []).append(one.count)
        known = {f"{REFERENCE}{name}#{i}": v for name, values in measured.items() for i, v in enumerate(values)}
        known[REFERENCE + "rounds"] = float(local.round)
        told = tuple(
            Finding(
                self.name, self.gate, "leak", value, None, f"An honest reference model: {name} {value:.3g}.", ACTION,
                figure=name,
            )
            for name, value in known.items()
        )  # fmt: skip
        return measured, told


@register
@dataclass(frozen=True, kw_only=True)
class Unlooked:
    """What of the model the leak could not be measured in. It is no accusation, but it is no *pass* either."""

    name: ClassVar[str] = "unlooked"
    paper: ClassVar[Paper] = INVERTIGO
    gate: ClassVar[Gate] = "send"
    needs: ClassVar[frozenset[str]] = frozenset({"probe"})

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """See `types.Guard`."""
        signals = signals_of(received, local)
        missing = [f"'{name}' ({why})" for name, why in signals.unseen.items()]
        large = [sheet.name for sheet in sheets(signals.uses) if sheet.matters and too_many(sheet)]
        missing += [f"'{name}' (pairs of its rows: too many)" for name in large]
        told = "; ".join(missing[:5]) + (f"; and {len(missing) - 5} more" if len(missing) > 5 else "")
        message = f"What these show of single examples is not known: {told}." if missing else "Every use was looked at."
        action = "Decide by hand whether it may leave; a simpler layer, or a smaller probe, can be looked at."
        return (
            Finding(
                self.name, self.gate, "leak", float(len(missing)), None, message, action, alarming=bool(missing)
            ),
        )  # fmt: skip


def figure(one: Leak) -> str:
    """Under what name the count stands in the history."""
    return f"{one.how}:{one.sheet.name}"


def basis(one: Leak) -> str:
    """The figure of honest models that a count is held against; what is read back is what stood alone."""
    return f"{'pairs' if one.how == 'update' else one.how}:{one.sheet.name}"


def rounding(local: Local) -> float:
    """Relative rounding of what leaves."""
    tensors = local.update.tensors if local.update is not None else local.task.model.state_dict()
    return max((torch.finfo(t.dtype).eps for t in tensors.values() if t.is_floating_point()), default=1e-7)


def dropped(one: Leak, allowed: Allowance, epsilon: float) -> dict[str, Tensor]:
    """Places of the rows whose absence leaves no more than usual: those that show examples, then all."""
    sheet, rows = one.sheet, set(one.rows)
    for _ in range(TRIES):
        if one.how == "update":
            break
        told = leaks_of(sheet.without(rows), one.of, epsilon)
        left = next(found for found in told if found.how == one.how)
        if left.count <= allowed.usual:
            break
        rows |= set(left.rows)
    else:
        rows = set(range(sheet.slopes.shape[1]))
    return sheet.places(rows)
