"""Any PyTorch dataset of (image, label) pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from invertigo.data.image_set import ImageSet
from invertigo.types import InvalidValueError, MismatchError


def from_dataset(
    dataset: Iterable[Any] | Any,
    *,
    classes: Iterable[str] | None = None,
    limit: int | None = None,
    name: str | None = None,
) -> ImageSet:
    """The first `limit` examples of a `torch.utils.data.Dataset` (or any iterable) of (image, label) pairs.

    Images are float tensors (channels, height, width) in [0, 1], or bytes, which are divided by 255. Labels are whole
    numbers. `classes` defaults to the dataset's own attribute of that name, then to the numbers found.

    Raises: InvalidValueError naming the example that does not fit; MismatchError for images of different shapes.
    """
    pairs = [_pair(index, item) for index, item in enumerate(islice(_items(dataset), limit))]
    if not pairs:
        raise InvalidValueError("The dataset is empty; there is nothing to audit in it.")
    first = pairs[0][0].shape
    for index, (image, _) in enumerate(pairs):
        if image.shape != first:
            raise MismatchError(
                f"Example {index} has shape {tuple(image.shape)} but example 0 has {tuple(first)}. "
                "A batch needs images of one size: resize them in the dataset's transform."
            )
    labels = torch.tensor([label for _, label in pairs])
    named = classes if classes is not None else getattr(dataset, "classes", None)
    names = tuple(map(str, named)) if named is not None else tuple(map(str, range(int(labels.max()) + 1)))
    return ImageSet(name or type(dataset).__name__, torch.stack([image for image, _ in pairs]), labels, names)


def _items(dataset: Any) -> Iterator[Any]:
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return (dataset[index] for index in range(len(dataset)))
    return iter(dataset)


def _pair(index: int, item: Any) -> tuple[Tensor, int]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise InvalidValueError(f"Example {index} is a {type(item).__name__}; a pair (image, label) is needed.")
    image, label = item
    if not isinstance(image, Tensor):
        raise InvalidValueError(
            f"The image of example {index} is a {type(image).__name__}, not a tensor; "
            "turn it into one in the dataset's transform (torchvision: ToTensor())."
        )
    return _pixels(index, image), _label(index, label)


def _pixels(index: int, image: Tensor) -> Tensor:
    if image.ndim != 3:
        raise InvalidValueError(
            f"The image of example {index} has shape {tuple(image.shape)}; (channels, height, width) is needed."
        )
    pixels = image.detach().cpu().float() / (255 if image.dtype == torch.uint8 else 1)
    low, high = pixels.min().item(), pixels.max().item()
    if not (low >= 0 and high <= 1):
        raise InvalidValueError(
            f"The image of example {index} ranges over [{low:.3g}, {high:.3g}], outside [0, 1]. Scores are measured "
            "in pixels: leave normalisation out of the dataset and give mean and std to domains.Images instead."
        )
    return pixels


def _label(index: int, label: Any) -> int:
    if isinstance(label, Tensor):
        whole = label.numel() == 1 and not label.is_floating_point()
    else:
        whole = hasattr(label, "__index__")
    if not whole:
        raise InvalidValueError(f"The label of example {index} is {label!r}; a whole number (the class) is needed.")
    return int(label)
