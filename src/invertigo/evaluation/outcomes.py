"""What became of each private example: rebuilt exactly, recognisably, or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from invertigo.types import Identification, Scores

Outcome = Literal["exact", "recognisable", "nothing"]
OWN_COLOUR = "own_mean_colour"
HIGHEST = 160.0
"""Decibels at which PSNR is cut off."""
ENOUGH_DECOYS = 100
"""A guess without information is picked out of so long a line-up once in a hundred examples."""


FEW_CANDIDATES = 10
"""An example on a list of so many answers that an attack cannot tell apart is recognised: guesses have none of them."""


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """Where we draw the lines. The thresholds are ours, set by looking at pictures, not taken from a paper.

    `exact_psnr`: 60 dB is an error of a thousandth of the range, a quarter of one grey level of 255.

    `exact_contrast`: decibels above the picture's own mean colour that exactness takes too, an error of a tenth of its
    contrast: in a range stated far too wide, every picture is within a thousandth of it.

    `perceptual`: up to 0.25, people looking at blurred, noisy, faded, shifted and mixed 25×25 faces, 32×32 photographs
    and 8×8 digits know the picture (noise of 10 % of the range, a blur of one pixel and a fifth of the contrast pass;
    noise of 30 %, a blur of three pixels and another person's face do not). `unverified_perceptual` is asked for
    instead where no line-up of 100 decoys can vouch for it, since the mean of aligned faces comes near 0.25.
    Error rates against retrieval by a trained embedding: `benchmarks/recognition.py`.

    `oracles` names the baselines that look at the truth; they are shown to the reader, but a guesser without
    information cannot do as well, and in a narrow domain (digits) the nearest public picture is nearly the same one.
    """

    exact_psnr: float = 60.0
    exact_contrast: float = 20.0
    perceptual: float = 0.25
    unverified_perceptual: float = 0.15
    oracles: frozenset[str] = frozenset({OWN_COLOUR, "public_nearest"})


def outcomes(
    scores: Scores,
    identification: Identification | None,
    baselines: Mapping[str, Scores],
    criteria: Criteria | None = None,
) -> list[Outcome]:
    """The outcome of each example, in the order of the truth.

    Exact: PSNR reaches `exact_psnr`, lies `exact_contrast` above the picture's own mean colour, and beats every
    baseline, oracles included, so that a blank picture guessed blank is no leak. Recognisable: the perceptual distance
    is small enough, is smaller than that of every baseline that is no oracle, and the truth came first in the line-up.
    PSNR plays no part in it: a plain picture that is too bright or three pixels off can fall below a grey square, and
    a grey square reaches 20 dB where there is little contrast.
    """
    rule = criteria or Criteria()
    exact = (scores.per_example["psnr"] >= rule.exact_psnr) & _beats(scores, "psnr", baselines, +1)
    if OWN_COLOUR in baselines:
        contrast = baselines[OWN_COLOUR].per_example["psnr"]
        # Scores end at 160 dB: what is equal to the last digit is exact, however faint.
        exact &= scores.per_example["psnr"] >= (contrast + rule.exact_contrast).clamp_max(HIGHEST)
    rivals = {name: score for name, score in baselines.items() if name not in rule.oracles}
    verified = identification is not None and identification.decoys >= ENOUGH_DECOYS
    limit = rule.perceptual if verified else rule.unverified_perceptual
    seen = (scores.per_example["perceptual"] <= limit) & _beats(scores, "perceptual", rivals, -1)
    if identification is not None:
        seen &= identification.identified.to(seen.device)
    return ["exact" if e else "recognisable" if s else "nothing" for e, s in zip(exact.tolist(), seen.tolist())]


def _beats(scores: Scores, metric: str, baselines: Mapping[str, Scores], sign: int) -> Bool[Tensor, " batch"]:
    own = sign * scores.per_example[metric]
    rivals = [sign * baseline.per_example[metric] for baseline in baselines.values()]
    return torch.stack([own > rival for rival in rivals]).all(0) if rivals else torch.ones_like(own, dtype=torch.bool)


def on_a_short_list(outcomes: Sequence[Outcome], others: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """The outcomes where an attack lists a few answers that it cannot tell apart.

    An example that the first answer does not show, but another one has exactly, is recognisable on a list of up to
    `FEW_CANDIDATES`: an observer has narrowed it down to these. `others` are the outcomes of the other answers.
    """
    if 1 + len(others) > FEW_CANDIDATES:
        return list(outcomes)
    listed = [any(answer[place] == "exact" for answer in others) for place in range(len(outcomes))]
    return ["recognisable" if first == "nothing" and there else first for first, there in zip(outcomes, listed)]
