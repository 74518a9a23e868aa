"""Named image sets: the registry, and the one function that loads from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from invertigo.data.image_set import ImageSet
from invertigo.types import InvalidValueError, Paper, Registry, UnknownNameError, did_you_mean

Content = tuple[Tensor, Tensor, tuple[str, ...]]
"""Images (examples, channels, height, width) in [0, 1], labels (examples,), names of the classes."""


@dataclass(frozen=True)
class Request:
    """What is wanted: a `split`, `size` in pixels (None: as stored), files below `root`, the first `limit` examples."""

    split: str = "train"
    size: int | None = None
    root: Path | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("size", "limit"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InvalidValueError(f"{name} is {value!r}; it must be a positive whole number, or None for all.")


@dataclass(frozen=True)
class ImageSource:
    """A set that can be loaded by name. `read` returns its content; `bundled` sets need no files of their own."""

    name: str
    summary: str
    splits: tuple[str, ...]
    licence: str
    read: Callable[[Request], Content]
    bundled: bool = False
    paper: Paper | None = None

    def load(self, request: Request) -> ImageSet:
        """Read what is asked for. Raises: UnknownNameError for a split that the set does not have."""
        if request.split not in self.splits:
            raise UnknownNameError(
                f"'{self.name}' has no split '{request.split}'.{did_you_mean(request.split, self.splits)}"
                f" Known: {', '.join(self.splits)}."
            )
        images, labels, classes = self.read(request)
        return ImageSet(
            self.name,
            images[: request.limit].float(),
            labels[: request.limit].long(),
            classes,
            bundled=self.bundled,
            licence=self.licence,
            paper=self.paper,
        )


registry: Registry[ImageSource] = Registry("data", "data set")


def register(source: ImageSource) -> ImageSource:
    """File a source under its own name."""
    return registry.register(source.name)(source)
