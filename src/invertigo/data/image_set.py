"""Labelled images in memory, as every loader returns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from invertigo.types import Batch, InvalidValueError, MismatchError, Paper


@dataclass(frozen=True)
class ImageSet:
    """Images with one label each; indexable, so that it serves as a `torch.utils.data.Dataset` too.

    `images` are float32 pixels in [0, 1], not normalised: mean and standard deviation belong to the domain.
    `classes[label]` is a label's name. `bundled` tells that the images ship with an installed package and are public,
    so a report may show them. `licence` and `paper` say where they come from.
    """

    name: str
    images: Float[Tensor, "examples channels height width"]
    labels: Int[Tensor, " labels"]
    classes: tuple[str, ...]
    bundled: bool = False
    licence: str = ""
    paper: Paper | None = None

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise InvalidValueError(f"The image set '{self.name}' is empty; there is nothing to audit in it.")
        if len(self.images) != len(self.labels):
            raise MismatchError(
                f"The image set '{self.name}' has {len(self.images)} images but {len(self.labels)} labels."
            )
        low, high = self.labels.min().item(), self.labels.max().item()
        if low < 0 or high >= len(self.classes):
            raise InvalidValueError(
                f"Labels of '{self.name}' run from {low} to {high}, but it has {len(self.classes)} classes, "
                f"which allow 0 to {len(self.classes) - 1}. Pass the names of all classes."
            )

    def __len__(self) -> int:
        return self.images.shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """How many classes a model of these images tells apart."""
        return len(self.classes)

    def batch(self, indices: int | Sequence[int] | slice | Tensor) -> Batch:
        """The examples at `indices`, in that order, as fields `images` and `labels`.

        Raises: InvalidValueError for an index that the set does not have.
        """
        index = self._index(indices)
        return Batch({"images": self.images[index], "labels": self.labels[index]})

    def others(self, indices: int | Sequence[int] | slice | Tensor) -> ImageSet:
        """Everything but the examples at `indices`: public images and decoys that do not contain the private batch."""
        keep = torch.ones(len(self), dtype=torch.bool)
        keep[self._index(indices)] = False
        return replace(self, images=self.images[keep], labels=self.labels[keep])

    def _index(self, indices: int | Sequence[int] | slice | Tensor) -> Tensor:
        positions = torch.arange(len(self))
        if isinstance(indices, slice):
            return positions[indices]
        wanted = torch.as_tensor(indices)
        wanted = positions[wanted] if wanted.dtype == torch.bool else torch.atleast_1d(wanted.long())
        outside = wanted[(wanted < -len(self)) | (wanted >= len(self))]
        if len(outside):
            raise InvalidValueError(
                f"'{self.name}' holds {len(self)} examples, numbered 0 to {len(self) - 1}; it has no {outside[0]}."
            )
        return wanted
