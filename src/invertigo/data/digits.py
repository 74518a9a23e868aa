"""Handwritten digits that scikit-learn bundles."""

from __future__ import annotations

import torch

from invertigo.data.pixels import resize
from invertigo.data.source import Content, ImageSource, Request, register
from invertigo.types import Paper
from invertigo.types.extras import require

OPTDIGITS = Paper(
    key="alpaydin1998optical",
    title="Optical Recognition of Handwritten Digits",
    authors="Alpaydin, Ethem and Kaynak, Cenk",
    year=1998,
    venue="UCI Machine Learning Repository",
)
INK_LEVELS = 16


def _read(request: Request) -> Content:
    """Grey images (1797, 1, 8, 8); the file counts inked pixels of 4x4 blocks, 0 to 16, which becomes [0, 1]."""
    digits = require("sklearn.datasets", "vision").load_digits()
    images = torch.from_numpy(digits.images[: request.limit]).float()[:, None] / INK_LEVELS
    return resize(images, request.size), torch.from_numpy(digits.target[: request.limit]), tuple("0123456789")


DIGITS = register(
    ImageSource(
        name="digits",
        summary="1,797 handwritten digits, grey, 8x8",
        splits=("train",),
        licence="CC BY 4.0 (UCI Machine Learning Repository), as distributed with scikit-learn",
        read=_read,
        bundled=True,
        paper=OPTDIGITS,
    )
)
