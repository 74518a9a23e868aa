"""Labelled images: bundled sets, public sets in their published formats, folders and datasets of one's own."""

from invertigo.data import cifar, digits, faces, idx, medmnist, microscopy, photos
from invertigo.data.dataset import from_dataset
from invertigo.data.folder import load_image_folder
from invertigo.data.image_set import ImageSet
from invertigo.data.loading import load
from invertigo.data.source import ImageSource, Request, registry

__all__ = [
    "ImageSet",
    "ImageSource",
    "Request",
    "cifar",
    "digits",
    "faces",
    "from_dataset",
    "idx",
    "load",
    "load_image_folder",
    "medmnist",
    "microscopy",
    "photos",
    "registry",
]
