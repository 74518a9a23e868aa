"""Labelled images and graphs: bundled sets, public sets in their published formats, folders and files of one's own."""

from invertigo.data import cifar, citeseer, digits, drugs, faces, idx, medmnist, microscopy, photos, smiles, social
from invertigo.data.dataset import from_dataset
from invertigo.data.folder import load_image_folder
from invertigo.data.graph_set import GraphSet
from invertigo.data.graph_source import GraphSource
from invertigo.data.image_set import ImageSet
from invertigo.data.loading import load
from invertigo.data.smiles import load_smiles
from invertigo.data.source import ImageSource, Request, registry

__all__ = [
    "GraphSet",
    "GraphSource",
    "ImageSet",
    "ImageSource",
    "Request",
    "cifar",
    "citeseer",
    "digits",
    "drugs",
    "faces",
    "from_dataset",
    "idx",
    "load",
    "load_image_folder",
    "load_smiles",
    "medmnist",
    "microscopy",
    "photos",
    "registry",
    "smiles",
    "social",
]
