"""Read the update as an attacker would, and look for one's own examples in what comes out."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from invertigo.guards.readable import Leak, leak, pairs_of
from invertigo.guards.sheets import Sheet
from invertigo.types import Update

CLOSE = 0.1
"""Error of a reading, as a part of the example's distance from the batch's mean, up to which it is one: 20 dB."""


def read_back(found: Iterable[Sheet], update: Update, examples: int, epsilon: float) -> list[Leak]:
    """What rows of the update that is about to leave show, and combinations of two of them.

    It works on what really leaves: after several local steps, and after a defense. Where a row has no bias, it is
    compared with every input up to its size, which an attacker can guess.
    """
    told = []
    for sheet in found:
        rows = sheet.rows_of(update.tensors) if sheet.matters and sheet.inputs is not None else None
        if rows is None or sheet.inputs is None or rows.shape[1] != sheet.inputs.shape[1]:
            continue
        inputs, shift = sheet.inputs.double(), sheet.shifts_of(update.tensors)
        pairs, ratio = pairs_of(sheet, epsilon)
        second = rows[pairs[:, 1]] - ratio[:, None] * rows[pairs[:, 2]]
        sizes = None if shift is None else torch.cat([shift, shift[pairs[:, 1]] - ratio * shift[pairs[:, 2]]])
        quality = decibels(torch.cat([rows, second]), inputs, sizes)
        hit = quality >= -20 * math.log10(CLOSE)
        shown = hit[:, : len(rows)].any(0)
        shown[pairs[hit[:, len(rows) :].any(0)][:, 1:].flatten()] = True
        told.append(leak(sheet, "update", hit.any(1), shown, examples, float(quality.max()) if len(quality) else 0.0))
    return told


def decibels(candidates: Tensor, inputs: Tensor, sizes: Tensor | None = None) -> Float[Tensor, "unit candidate"]:
    """How far each input lies from the batch's mean, against its distance from each candidate.

    `sizes` (candidate,) divide the candidates; without them, the distance is that from the candidate's line, as for an
    attacker who can guess the size. Where features hardly differ between examples, their mean is close to all of them
    and tells of none; so what counts is how far an example stands from the mean.
    """
    own = inputs - inputs.mean(0) if len(inputs) > 1 else inputs
    squares = inputs.square().sum(1, keepdim=True)
    size = candidates.abs().amax(1) if sizes is None else sizes
    ratios = torch.where(size[:, None] != 0, candidates / size[:, None], 0.0).nan_to_num(0.0, 0.0, 0.0)
    if sizes is None:
        unit = ratios / ratios.norm(dim=1, keepdim=True).clamp_min(1e-300)
        left = squares - (inputs @ unit.T).square()
    else:
        left = torch.cdist(inputs, ratios, compute_mode="donot_use_mm_for_euclid_dist").square()
    left = left.clamp_min(1e-15 * squares).clamp_min(1e-300)
    return 10 * torch.log10(own.square().sum(1, keepdim=True).clamp_min(1e-300) / left)
