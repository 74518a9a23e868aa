"""Face and background patches that scikit-image bundles."""

from __future__ import annotations

import torch

from invertigo.data.pixels import resize
from invertigo.data.source import Content, ImageSource, Request, register
from invertigo.types import Paper
from invertigo.types.extras import require

LFW = Paper(
    key="huang2012learning",
    title="Learning to Align from Scratch",
    authors="Huang, Gary B. and Mattar, Marwan and Lee, Honglak and Learned-Miller, Erik",
    year=2012,
    venue="Advances in Neural Information Processing Systems",
)


def _read(request: Request) -> Content:
    """Grey patches (200, 1, 25, 25): first 100 faces, then 100 non-faces."""
    patches = torch.from_numpy(require("skimage.data", "vision").lfw_subset()).float()
    labels = torch.arange(len(patches)) // 100
    images = patches[: request.limit, None].clamp(0, 1)
    return resize(images, request.size), labels[: request.limit], ("face", "no face")


FACES = register(
    ImageSource(
        name="faces",
        summary="100 grey faces and 100 background patches from Labeled Faces in the Wild, 25x25",
        splits=("train",),
        licence="As distributed with scikit-image, from Labeled Faces in the Wild",
        read=_read,
        bundled=True,
        paper=LFW,
    )
)
