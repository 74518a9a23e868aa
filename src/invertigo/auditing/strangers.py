"""Public examples to show beside a reconstruction whose original must not be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from invertigo.auditing.record import AttackRecord, MetricRecord
from invertigo.types import Batch, Domain

SHOWN = 5


def nearest_strangers(
    domain: Domain,
    attacks: Sequence[AttackRecord],
    headline: MetricRecord,
    tensors: Mapping[str, Tensor],
    truth: Batch | None,
    lineup: Batch | None,
) -> dict[str, Tensor]:
    """The few public examples nearest to the reconstruction that gives most away, by the headline score.

    Empty where nothing won a line-up. What equals a private example, or comes as near to the reconstruction as the
    original does, is left out: it may show the same thing.
    """
    sign = 1 if headline.privacy_loss else -1
    won = [
        (a.recovered, a.identified, sign * a.scores[headline.name][i], -a.level, number, i)
        for number, a in enumerate(attacks)
        for i in range(len(a.outcomes))
        if a.outcomes[i] != "nothing" and a.ranks and a.ranks[i] == 1 and a.matching[i] >= 0
    ]
    if not won or truth is None or lineup is None:
        return {}
    *_, best, _, number, example = max(won)
    attack = attacks[number]
    rebuilt = {
        name.removeprefix(f"{attack.tensors}/"): tensor[attack.matching[example]]
        for name, tensor in tensors.items()
        if name.startswith(f"{attack.tensors}/") and len(tensor) > attack.matching[example]  # perhaps fewer than true
    }
    repeated = {name: one.expand(len(lineup), *one.shape) for name, one in rebuilt.items()}
    scores = sign * domain.score(lineup, repeated).per_example[headline.name]
    order = scores.argsort(descending=True).tolist()
    kept = [k for k in order if scores[k] < best and not _is_private(lineup, k, truth, domain)][:SHOWN]
    return {name: tensor[kept] for name, tensor in lineup.fields.items()}


def _is_private(lineup: Batch, stranger: int, truth: Batch, domain: Domain) -> bool:
    """The public data hold this private example too."""
    own, public = truth.fields[domain.inputs], lineup.fields[domain.inputs][stranger]
    return own.shape[1:] == public.shape and any(torch.allclose(one.double(), public.double()) for one in own)
