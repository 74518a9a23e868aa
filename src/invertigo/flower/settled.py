"""What arrived, as entries of the client's own model: cast to its dtypes, and completed where only a part was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from invertigo.flower.casts import Casts, cast
from invertigo.flower.layout import names_of, parts_left_out
from invertigo.types import MismatchError, Received

LISTED = 3


@dataclass(frozen=True)
class Settled(Received):
    """An array record, read as entries of a model.

    `tensors` are all entries of the model, in its dtypes; those of `rest` were not sent, and are the client's own.
    `raw` are the arrays as they came, under the model's names, and `names` maps the record's names to these. `changed`
    are in another dtype now. `notes` say all this, for the client's log.
    """

    raw: Mapping[str, Tensor] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    rest: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Of what was sent, as it was sent: the client's own rest differs from client to client."""
        return Received(self.raw).fingerprint

    @property
    def sent(self) -> dict[str, Tensor]:
        """Only what was sent, in the model's dtypes."""
        return {name: self.tensors[name] for name in self.raw}


def settled(
    read: Mapping[str, Tensor],
    model: nn.Module,
    *,
    casts: Casts | None = "float32",
    order: Sequence[str] | None = None,
) -> Settled:
    """Read arrays against the client's model.

    Parts that are not sent are the client's own, whose model must therefore hold what it trains on. Shapes and names
    are not judged here.

    Args:
        casts: what a change of dtype may cost; None: nothing is cast.
        order: the model's names of a list without names.

    Raises: MismatchError for a dtype that cannot be the model's, two
        arrays for one entry, or a list without names that cannot be told.
    """
    own = model.state_dict()
    names = names_of(read, model, order)
    raw = {names[name]: tensor for name, tensor in read.items()}
    if len(raw) < len(read):
        raise MismatchError(f"Several of the arrays {listed(sorted(names))} are the same entry of the client's model.")
    sent, changed = dict(raw), {}
    for name, tensor in raw.items():
        if casts is not None and name in own and own[name].dtype != tensor.dtype:
            sent[name], changed[name] = cast(name, tensor, own[name].dtype, casts)
    rest = parts_left_out(sent, model) if any(name in own for name in sent) else ()
    kept = {name: own[name].detach().cpu().clone() for name in rest}
    notes = (*_notes_on_casts(changed), *_note_on_rest(rest, own))
    return Settled({**sent, **kept}, raw, names, rest, tuple(changed), notes)


def _notes_on_casts(changed: Mapping[str, str | None]) -> list[str]:
    lost = {name: how for name, how in changed.items() if how}
    exact = [name for name in changed if name not in lost]
    notes = [f"{listed(exact)} arrived in another dtype and lost nothing in the model's own"] if exact else []
    return notes + [
        f"{listed([n for n in lost if lost[n] == how])} arrived in another dtype, {how} in the model's own"
        for how in dict.fromkeys(lost.values())
    ]


def _note_on_rest(rest: Sequence[str], own: Mapping[str, Tensor]) -> list[str]:
    if not rest:
        return []
    return [f"{len(rest)} of {len(own)} entries were not sent ({listed(rest)}); they are the client's own"]


def listed(names: Sequence[str]) -> str:
    """The first few, quoted."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(f"'{name}'" for name in names[:LISTED]) + more
