"""Identification: could an observer pick the true example out of a line-up by looking at what was rebuilt?"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional

from invertigo.domains.matching import UNMATCHED, match
from invertigo.domains.registration import correlations, standardised

_NEARLY_ONE = 1 - 1e-12
_THUMBNAIL = 32


def likeness(
    left: Float[Tensor, "n channel height width"], right: Float[Tensor, "m channel height width"]
) -> Float[Tensor, "n m"]:
    """Highest correlation of every pair of images in [-1, 1], over small shifts and after taking channel means off.

    Blind to brightness, contrast, colour cast and a shift of up to an eighth of the side (around the edge), all of
    which an attack may get wrong while the picture is plain to see. Seen as thumbnails: sides above 32 pixels are
    averaged down first. A flat image is like nothing (0).
    """
    a, b = (standardised(_thumbnail(images)) for images in (left, right))
    size = (a.shape[-2], a.shape[-1])
    spectra = torch.fft.rfft2(a)
    columns = [correlations(spectra, guess, size).flatten(1).amax(1) for guess in torch.fft.rfft2(b)]
    return torch.stack(columns, dim=1).clamp(-1, 1)


def ranks_in_lineup(
    cost: Float[Tensor, "truths guesses"],
    decoy_cost: Float[Tensor, "decoys guesses"],
    similarity: Float[Tensor, "truths guesses"],
    decoy_similarity: Float[Tensor, "decoys guesses"],
) -> Int[Tensor, " truths"]:
    """Rank of each truth among the decoys, 1 when it alone comes first; ties count against it.

    A batch gives a guess several truths to be matched with, and the best of several looks nearer than it should. So
    each decoy gets the same chance: it stands in for the truth, the batch is matched anew by `cost`, and its
    similarity to the guess that falls to it competes. Truth and decoys are then exchangeable for a guess made without
    information: it puts a truth first with a probability of at most 1 / (1 + decoys), whatever the batch size.

    `similarity` holds correlations; they are compared after Fisher's transform, in standard deviations of the line-up
    before the same guess, so that a bland guess that resembles everyone does not outbid a telling one.
    """
    truths = cost.shape[0]
    matching, assigned = match(cost), _matched_as_stand_in(cost, decoy_cost)
    ranks = torch.full((truths,), len(decoy_cost) + 1)
    for i in (matching != UNMATCHED).nonzero().flatten().tolist():
        lineup = torch.cat([similarity[i : i + 1], decoy_similarity]).clamp(-_NEARLY_ONE, _NEARLY_ONE).atanh()
        scores = _in_deviations(lineup)  # (1 + decoys, guesses)
        columns = torch.cat([matching[i : i + 1], assigned[i]])
        chosen = scores.gather(1, columns.clamp_min(0)[:, None]).squeeze(1)
        chosen[columns == UNMATCHED] = -torch.inf
        ranks[i] = 1 + (chosen[1:] >= chosen[0]).sum()
    return ranks


def _thumbnail(images: Float[Tensor, "n channel height width"]) -> Float[Tensor, "n channel h w"]:
    return functional.avg_pool2d(images, math.ceil(min(images.shape[-2:]) / _THUMBNAIL))


def _in_deviations(lineup: Float[Tensor, "members guesses"]) -> Float[Tensor, "members guesses"]:
    return (lineup - lineup.mean(0)) / lineup.std(0, correction=0).clamp_min(1e-12)


def _matched_as_stand_in(
    cost: Float[Tensor, "truths guesses"], decoy_cost: Float[Tensor, "decoys guesses"]
) -> Int[Tensor, "truths decoys"]:
    """The guess that falls to decoy `k` when it stands in for truth `i`, the other truths staying."""
    stand_ins = decoy_cost.cpu().numpy()
    assigned = torch.full((cost.shape[0], len(stand_ins)), UNMATCHED)
    for i in range(cost.shape[0]):
        trial = cost.cpu().numpy().copy()
        for k, row in enumerate(stand_ins):
            trial[i] = row
            rows, columns = linear_sum_assignment(trial)
            if i in rows:
                assigned[i, k] = int(columns[rows == i][0])
    return assigned
