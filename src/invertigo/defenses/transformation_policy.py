"""Transformation policies such as `3-1-7+43-18-18`: numbers of a public table of fifty operations."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from invertigo.defenses.picture_operations import OPERATIONS
from invertigo.types import InvalidValueError

TABLE: tuple[tuple[str, int], ...] = (
    ("invert", 7), ("contrast", 6), ("rotate", 2), ("translate_x", 9), ("sharpness", 1),
    ("sharpness", 3), ("shear_y", 2), ("translate_y", 2), ("autocontrast", 5), ("equalize", 2),
    ("shear_y", 5), ("posterize", 5), ("color", 3), ("brightness", 5), ("sharpness", 9),
    ("brightness", 9), ("equalize", 5), ("equalize", 1), ("contrast", 7), ("sharpness", 5),
    ("color", 5), ("translate_x", 5), ("equalize", 7), ("autocontrast", 8), ("translate_y", 3),
    ("sharpness", 6), ("brightness", 6), ("color", 8), ("solarize", 0), ("invert", 0),
    ("equalize", 0), ("autocontrast", 0), ("equalize", 8), ("equalize", 4), ("color", 5),
    ("equalize", 5), ("autocontrast", 4), ("solarize", 4), ("brightness", 3), ("color", 0),
    ("solarize", 1), ("autocontrast", 0), ("translate_y", 3), ("translate_y", 3), ("autocontrast", 1),
    ("solarize", 1), ("equalize", 5), ("invert", 0), ("translate_y", 3), ("autocontrast", 1),
)  # fmt: skip
"""Operation and strength (0 to 9), as numbered in the code of Gao et al. (2021)."""

STRONGEST = {
    "shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331,
    "color": 0.5, "contrast": 0.5, "sharpness": 0.5, "brightness": 0.5,
}  # fmt: skip
"""Size at strength 9; the sign is drawn."""

Variant = tuple[tuple[str, float], ...]
"""Operations with their sizes, applied from first to last."""


@dataclass(frozen=True)
class Policy:
    """Sequences of table numbers, of which every example draws one."""

    sequences: tuple[tuple[int, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Read `a-b-c+d-e-f`; -1 stands for no operation. Raises: InvalidValueError for anything else."""
        parts = text.split("+")
        readable = all(re.fullmatch(r"(-1|\d+)(-(-1|\d+))*", part) for part in parts)
        numbers = [[int(n) for n in re.findall(r"(?:(?<=-)|^)(-1|\d+)", part)] for part in parts] if readable else [[]]
        parsed = [[n for n in part if n >= 0] for part in numbers]
        wrong = [n for part in parsed for n in part if n >= len(TABLE)]
        if wrong or not all(parsed):
            raise InvalidValueError(
                f"The policy {text!r} cannot be read{f': there is no operation {wrong[0]}' if wrong else ''}. A policy "
                f"names operations 0 to {len(TABLE) - 1}, such as '3-1-7' for one after the other, or '3-1-7+43-18-18' "
                "for one of two at random; without an operation, images would be trained on as they are."
            )
        return cls(tuple(tuple(part) for part in parsed))

    def first(self, operations: int) -> Policy:
        """The policy with no more than so many operations a sequence."""
        return Policy(tuple(sequence[:operations] for sequence in self.sequences))

    def variants(self) -> list[list[Variant]]:
        """For each sequence, all that its random signs can make of it."""
        return [
            list(itertools.product(*([(TABLE[number][0], size) for size in sizes(number)] for number in sequence)))
            for sequence in self.sequences
        ]

    def applied(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures (batch, channel, height, width) in [0, 1], each after a sequence and signs drawn for it."""
        variants, result = self.variants(), torch.empty_like(pictures)
        draws = torch.rand((len(pictures), 2), generator=generator, device=generator.device, dtype=torch.float64)
        for i, (which, sign) in enumerate(draws.tolist()):
            possible = variants[int(which * len(variants))]
            result[i : i + 1] = apply(possible[int(sign * len(possible))], pictures[i : i + 1])
        return result


def sizes(number: int) -> Sequence[float]:
    """The sizes, one or two, that operation `number` of the table can have."""
    name, strength = TABLE[number]
    if name in STRONGEST:
        size = STRONGEST[name] * strength / 9
        return (size, -size) if size else (0.0,)
    fixed = {
        "rotate": 30 * strength / 9,
        "solarize": 256 * (1 - strength / 9),
        "posterize": float(round(8 - 4 * strength / 9)),
    }
    return (fixed.get(name, 0.0),)


def apply(variant: Variant, pictures: Tensor) -> Tensor:
    """`pictures` (batch, channel, height, width) in [0, 1] after the operations of `variant`."""
    for name, size in variant:
        pictures = OPERATIONS[name](pictures, size)
    return pictures
