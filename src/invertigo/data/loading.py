"""Load images or graphs by name, or from a folder or a file of one's own."""

from __future__ import annotations

from pathlib import Path

from invertigo.data.folder import load_image_folder
from invertigo.data.graph_set import GraphSet
from invertigo.data.image_set import ImageSet
from invertigo.data.locate import places
from invertigo.data.medmnist import medmnist_layouts, medmnist_source
from invertigo.data.reads import exists
from invertigo.data.smiles import load_smiles
from invertigo.data.source import ImageSource, Request, registry
from invertigo.types import MissingDataError


def load(
    name: str,
    *,
    split: str = "train",
    size: int | None = None,
    root: str | Path | None = None,
    limit: int | None = None,
) -> ImageSet | GraphSet:
    """The set of images, or of graphs, called `name`.

    Args:
        name: A name in the registry (`faces`, `digits`, `photos`, `six_photos`, `cifar10`, `mnist`, `drugs`, ...), the
            name of an image folder or of a MedMNIST file that lies where data are looked for, the path of an image
            folder, or the path of a .csv file of SMILES.
        split: Which part; the splits of a set never overlap.
        size: Height and width in pixels; images are cropped to their central square and LANCZOS-resized.
            None keeps them as they are stored (`photos` and `six_photos`: 32).
        root: Look only here, instead of in `INVERTIGO_DATA` and the cache folder.
        limit: Only the first `limit` examples; the others are not decoded.

    Raises:
        UnknownNameError: No such set, or it has no such split.
        MissingDataError: The set is known but its files are not on this machine; says where they go.
        CorruptFileError: A file is damaged or is not what its name says.
    """
    if name.endswith(".csv"):
        return load_smiles(Path(name).expanduser(), limit=limit)
    request = Request(split, size, Path(root).expanduser() if root is not None else None, limit)
    if name not in registry:
        if (archive := _own_archive(name, request.root)) is not None:
            return archive.load(request)
        folder = _own_folder(name, request.root)
        if folder is not None:
            return load_image_folder(_split_of(folder, split), size=size, limit=limit, name=folder.name)
    return registry[name].load(request)


def _own_archive(name: str, root: Path | None) -> ImageSource | None:
    held = any(exists(place / layout, "is_file") for place in places(root) for layout in medmnist_layouts(name))
    return medmnist_source(name) if held else None


def _own_folder(name: str, root: Path | None) -> Path | None:
    path = Path(name).expanduser()
    if path.is_absolute() or len(path.parts) > 1 or name.startswith("."):
        if not exists(path, "is_dir"):
            raise MissingDataError(f"There is no image folder {path}; pass the path of an existing one.")
        return path
    return next((place / name for place in places(root) if name and exists(place / name, "is_dir")), None)


def _split_of(folder: Path, split: str) -> Path:
    if exists(folder / split, "is_dir"):
        return folder / split
    if split != "train":
        raise MissingDataError(
            f"The image folder {folder} has no split '{split}'; put it at {folder / split}/<class>/."
        )
    return folder
