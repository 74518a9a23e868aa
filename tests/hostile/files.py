"""Small valid files of every format that is read from elsewhere, and ways to spoil them."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from invertigo import data
from invertigo.auditing.scenario import load_scenario
from invertigo.report.files import read_record
from invertigo.studies.spec import load_study
from invertigo.types import read_tensors

SCENARIO = b"""title: A small client
data: {name: digits, count: 2, public_count: 20}
model: {name: mlp, options: {widths: [16]}}
local: {mode: eval, epochs: 1}
attacks: [linear_layer, {name: dlg, iterations: 3}]
compare:
  - {local.mode: train}
"""
STUDY = b"""name: small
base: {data: {name: digits, count: 2}, attacks: [linear_layer]}
axes: {local.mode: [train, eval]}
seeds: [0, 1]
"""
GRAPHS = b"2\n3 0\n0 2 1 2\n0 1 0\n0 1 0\n2 1\n0 1 1\n0 1 0\n"
SMILES = b"smiles,label\nCCO,0\nc1ccccc1,1\nCC(=O)O,0\n"


def idx() -> bytes:
    """Three images of 4x4."""
    return struct.pack(">4B3I", 0, 0, 8, 3, 3, 4, 4) + bytes(range(48))


def png(mode: str = "RGB") -> bytes:
    """A picture of 6x6."""
    text = io.BytesIO()
    Image.fromarray(np.arange(108, dtype=np.uint8).reshape(6, 6, 3)).convert(mode).save(text, "PNG")
    return text.getvalue()


def picture(kind: str) -> bytes:
    """A picture of 6x6 in another format."""
    text = io.BytesIO()
    Image.fromarray(np.arange(108, dtype=np.uint8).reshape(6, 6, 3)).save(text, kind)
    return text.getvalue()


def medmnist() -> bytes:
    """Four images of a split in a MedMNIST file."""
    text = io.BytesIO()
    np.savez_compressed(
        text, train_images=np.arange(64, dtype=np.uint8).reshape(4, 4, 4), train_labels=np.array([[0], [1], [0], [1]])
    )
    return text.getvalue()


def cifar() -> bytes:
    """Two images of a CIFAR-10 batch."""
    content = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [3, 5], b"filenames": [b"a", b"b"]}
    return pickle.dumps(content, protocol=2)


def citations() -> bytes:
    """Who cites whom."""
    return pickle.dumps(defaultdict(list, {0: [1, 2], 1: [0], 2: [0]}), protocol=2)


def tensors() -> bytes:
    """An update."""
    return save({"0.weight": torch.ones(3, 4), "0.bias": torch.zeros(3)})


def _image(folder: Path, content: bytes, suffix: str) -> None:
    home = folder / "set" / "a"
    home.mkdir(parents=True, exist_ok=True)
    (home / f"x.{suffix}").write_bytes(content)
    data.load_image_folder(folder / "set", size=4)


def _written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _medmnist(folder: Path, content: bytes) -> None:
    _written(folder, "pneumoniamnist.npz", content)
    data.load("pneumoniamnist", root=folder, limit=2)


def _own_archive(folder: Path, content: bytes) -> None:
    _written(folder, "theirs.npz", content)
    data.load("theirs", root=folder)


FORMATS: dict[str, tuple[bytes, Callable[[Path, bytes], object]]] = {
    "idx": (idx(), lambda f, b: data.idx.read_idx(_written(f, "x-ubyte", b), ndim=3, limit=1)),
    "idx.gz": (gzip.compress(idx()), lambda f, b: data.idx.read_idx(_written(f, "x.gz", b), ndim=3)),
    "png": (png(), lambda f, b: _image(f, b, "png")),
    "palette png": (png("P"), lambda f, b: _image(f, b, "png")),
    "jpeg": (picture("JPEG"), lambda f, b: _image(f, b, "jpg")),
    "gif": (picture("GIF"), lambda f, b: _image(f, b, "gif")),
    "tiff": (picture("TIFF"), lambda f, b: _image(f, b, "tiff")),
    "bmp": (picture("BMP"), lambda f, b: _image(f, b, "bmp")),
    "webp": (picture("WEBP"), lambda f, b: _image(f, b, "webp")),
    "npz": (medmnist(), _medmnist),
    "npz of one's own": (medmnist(), _own_archive),
    "cifar": (cifar(), lambda f, b: data.cifar.read_batch(_written(f, "data_batch_1", b))),
    "planetoid": (citations(), lambda f, b: data.citeseer.read_inert(_written(f, "ind.citeseer.graph", b))),
    "graphs": (GRAPHS, lambda f, b: data.social.read_graph_text(_written(f, "g.txt", b))),
    "smiles": (SMILES, lambda f, b: data.load_smiles(_written(f, "s.csv", b))),
    "safetensors": (tensors(), lambda f, b: read_tensors(_written(f, "u.safetensors", b))),
    "scenario": (SCENARIO, lambda f, b: load_scenario(_written(f, "s.yaml", b)).companions()),
    "study": (STUDY, lambda f, b: load_study(_written(f, "t.yaml", b))),
    "result": (b'{"schema_version": 1, "title": "x"}', lambda f, b: read_record(_written(f, "result.json", b))),
}
"""Format to a valid file of it and what reads it. The result is one that is refused with a reason."""

TOKENS = (
    *(
        b"999999999",
        b"-1",
        b"1e400",
        b"NaN",
        b"&a [*a]",
        b"{",
        b"[[",
        b"\x00",
        b"\xff\xff\xff\xff",
        b"!!python/name:os",
    ),
    *(b"2001-99-99", b"\x85", b"2\x86", b"\x87r\x01\x00\x00\x00", b"\xe2\x80\xae", b"0x", b"\n\n", b"? ", b"'", b'"'),
)


def mutations(valid: bytes, count: int, seed: int) -> Iterator[bytes]:
    """`count` spoilt copies: bytes flipped, cut, doubled, moved, replaced by what means something elsewhere."""
    draw = random.Random(seed)
    for _ in range(count):
        made = bytearray(valid)
        for _ in range(draw.choice((1, 1, 2, 5))):
            at = draw.randrange(len(made) + 1)
            end = min(len(made), at + draw.choice((1, 2, 4, 16)))
            how = draw.randrange(6)
            if how == 0 and at < len(made):
                made[at] ^= 1 << draw.randrange(8)
            elif how == 1:
                made[at:end] = bytes(draw.randrange(256) for _ in range(end - at))
            elif how == 2:
                del made[at:end]
            elif how == 3:
                made[at:at] = made[at:end]
            elif how == 4:
                made[at:end] = draw.choice(TOKENS)
            else:
                del made[at:]
        yield bytes(made)
