"""MedMNIST: small medical images, one npz file a set."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

from invertigo.data.locate import find
from invertigo.data.npz import UNREADABLE, read_rows, rows_of
from invertigo.data.pixels import from_bytes, resize
from invertigo.data.source import Content, ImageSource, Request, register
from invertigo.types import CorruptFileError, InvalidValueError, Paper
from invertigo.types.untrusted import check_file

MEDMNIST = Paper(
    key="yang2023medmnist",
    title="MedMNIST v2: A Large-Scale Lightweight Benchmark for 2D and 3D Biomedical Image Classification",
    authors="Yang, Jiancheng and Shi, Rui and Wei, Donglai and Liu, Zequan and Zhao, Lin and Ke, Bilian and "
    "Pfister, Hanspeter and Ni, Bingbing",
    year=2023,
    venue="Scientific Data",
    arxiv="2110.14795",
)
SETS = {
    "pathmnist": "colon tissue under the microscope, colour",
    "dermamnist": "pigmented skin lesions, colour",
    "octmnist": "retinal OCT scans, grey",
    "pneumoniamnist": "chest X-rays of children, grey",
    "retinamnist": "fundus photographs, colour",
    "breastmnist": "breast ultrasound, grey",
    "bloodmnist": "blood cells under the microscope, colour",
    "tissuemnist": "kidney cortex cells, grey",
    "organamnist": "abdominal CT, axial slices, grey",
    "organcmnist": "abdominal CT, coronal slices, grey",
    "organsmnist": "abdominal CT, sagittal slices, grey",
}
MOST_CLASSES = 10_000
CLASSES = {"pneumoniamnist": ("normal", "pneumonia"), "breastmnist": ("malignant", "normal or benign")}


def read_medmnist(path: Path, *, split: str = "train", limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (examples, height, width[, 3]) and labels (examples,) of one split (train, val, test) of a MedMNIST file.

    With a `limit`, the classes take turns for as long as they last: copies exist that are sorted by class, of which the
    first examples would be of one class only. Objects are refused, so nothing in the file is unpickled.
    Raises: CorruptFileError; InvalidValueError for a multi-label or a 3D set.
    """
    try:
        with zipfile.ZipFile(check_file(path)) as archive:
            labels = read_rows(archive, f"{split}_labels", path)
            labels = labels.reshape(len(labels), -1)
            chosen = None if limit is None else _in_turn(labels[:, 0])[:limit]
            images, count = read_rows(archive, f"{split}_images", path, chosen), rows_of(archive, f"{split}_images")
    except UNREADABLE as error:
        raise CorruptFileError(
            f"{path} is not an intact MedMNIST file with arrays '{split}_images' and '{split}_labels' ({error}). "
            "Get it afresh from https://medmnist.com."
        ) from error
    if labels.shape[1] != 1 or images.dtype != np.uint8 or not _is_flat(images):
        raise InvalidValueError(
            f"{path} holds {images.dtype} images of shape {images.shape[1:]} with {labels.shape[1]} labels each; "
            "only flat grey or colour images with one label each are supported."
        )
    if count != len(labels):
        raise CorruptFileError(f"{path} holds {count} images but {len(labels)} labels in split '{split}'.")
    if labels.dtype.kind not in "ui" or (labels < 0).any() or (labels >= MOST_CLASSES).any():
        raise CorruptFileError(
            f"{path} holds labels of type {labels.dtype} from {labels.min()} to {labels.max()}; classes are numbered "
            f"from 0 to {MOST_CLASSES - 1} at most."
        )
    return images, labels[:, 0] if chosen is None else labels[chosen, 0]


def _in_turn(labels: np.ndarray) -> np.ndarray:
    """Indices of the first example of each class, then of the second of each, and so on."""
    ranks = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        ranks[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, ranks))


def _is_flat(images: np.ndarray) -> bool:
    return images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)


def _read(request: Request, *, name: str) -> Content:
    path = find(name, medmnist_layouts(name), request.root)
    images, labels = read_medmnist(path, split=request.split, limit=request.limit)
    targets = torch.from_numpy(labels.astype(np.int64))
    return resize(from_bytes(images), request.size), targets, _classes(path, name)


def _classes(path: Path, name: str) -> tuple[str, ...]:
    if name in CLASSES:
        return CLASSES[name]
    with zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith("_labels.npy")]
        highest = max(int(read_rows(archive, name, path).max(initial=0)) for name in names)
    return tuple(str(label) for label in range(min(highest, MOST_CLASSES) + 1))


def medmnist_layouts(name: str) -> tuple[str, ...]:
    """Where the file may lie below a data folder."""
    return f"medmnist/{name}.npz", f"{name}.npz"


def medmnist_source(name: str, summary: str = "") -> ImageSource:
    """How the set in `<name>.npz` is loaded."""
    return ImageSource(
        name=name,
        summary=f"MedMNIST: {summary}, 28x28" if summary else "An image set in a MedMNIST file",
        splits=("train", "val", "test"),
        licence="CC BY-NC 4.0" if name == "dermamnist" else "CC BY 4.0",
        read=partial(_read, name=name),
        paper=MEDMNIST,
    )


for _name, _summary in SETS.items():
    register(medmnist_source(_name, _summary))
