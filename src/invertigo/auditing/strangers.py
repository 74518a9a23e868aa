"""Public examples to show beside a reconstruction whose original must not be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from invertigo.auditing.record import AttackRecord, MetricRecord
from invertigo.types import Batch, Domain

SHOWN = 5


def nearest_strangers(
    domain: Domain,
    attacks: Sequence[AttackRecord],
    headline: MetricRecord,
    tensors: Mapping[str, Tensor],
    lineup: Batch | None,
) -> dict[str, Tensor]:
    """The few public examples nearest to the reconstruction that gives most away, by the headline score.

    Empty where nothing won a line-up. A stranger that comes as near as the original itself is left out, since it may
    show the same thing.
    """
    sign = 1 if headline.privacy_loss else -1
    won = [
        (a.recovered, a.identified, sign * a.scores[headline.name][i], -a.level, number, i)
        for number, a in enumerate(attacks)
        for i in range(len(a.outcomes))
        if a.outcomes[i] != "nothing" and a.ranks and a.ranks[i] == 1 and a.matching[i] >= 0
    ]
    if not won or lineup is None:
        return {}
    *_, best, _, number, example = max(won)
    attack = attacks[number]
    rebuilt = {
        name.removeprefix(f"{attack.tensors}/"): tensor[attack.matching[example]]
        for name, tensor in tensors.items()
        if name.startswith(f"{attack.tensors}/") and len(tensor) == len(attack.matching)
    }
    repeated = {name: one.expand(len(lineup), *one.shape) for name, one in rebuilt.items()}
    scores = sign * domain.score(lineup, repeated).per_example[headline.name]
    order = [k for k in scores.argsort(descending=True).tolist() if scores[k] < best][:SHOWN]
    return {name: tensor[order] for name, tensor in lineup.fields.items()}
