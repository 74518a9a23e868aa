"""Loaders of public sets, on small files in the true formats, intact and damaged."""

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invertigo import data
from invertigo.data.cifar import CLASSES, read_batch
from invertigo.data.idx import read_idx
from invertigo.types import CorruptFileError, InvalidValueError, MismatchError, MissingDataError, UnknownNameError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_places(monkeypatch, tmp_path):
    monkeypatch.delenv("INVERTIGO_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(folder: Path, prefix="train", n=7, suffix=".gz", dash="-") -> tuple[np.ndarray, np.ndarray]:
    images, labels = RNG.integers(0, 256, (n, 28, 28), np.uint8), RNG.integers(0, 10, n, np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    write = (lambda p, b: p.write_bytes(gzip.compress(b))) if suffix else (lambda p, b: p.write_bytes(b))
    write(folder / f"{prefix}-images{dash}idx3-ubyte{suffix}", idx(images))
    write(folder / f"{prefix}-labels{dash}idx1-ubyte{suffix}", idx(labels))
    return images, labels


class TestPlaces:
    def test_the_variable_comes_before_the_cache(self, tmp_path, monkeypatch):
        write_mnist(tmp_path / "cache/invertigo/mnist", n=2)
        assert len(data.load("mnist")) == 2
        write_mnist(tmp_path / "mine/mnist", n=3)
        monkeypatch.setenv("INVERTIGO_DATA", str(tmp_path / "mine"))
        assert len(data.load("mnist")) == 3
        assert len(data.load("mnist", root=tmp_path / "cache/invertigo")) == 2

    def test_a_system_package_comes_last_and_not_under_a_root_of_ones_own(self, tmp_path, monkeypatch):
        write_mnist(tmp_path / "system", n=2)
        garments = data.registry["fashion_mnist"]
        assert garments.read.keywords["beside"] == (Path("/usr/share/datasets/fashion-mnist"),)
        monkeypatch.setitem(garments.read.keywords, "beside", (tmp_path / "system",))
        assert len(data.load("fashion_mnist")) == 2
        with pytest.raises(MissingDataError):
            data.load("fashion_mnist", root=tmp_path)
        write_mnist(tmp_path / "cache/invertigo/fashion_mnist", n=3)
        assert len(data.load("fashion_mnist")) == 3

    @pytest.mark.parametrize(
        ("name", "split", "file"),
        [
            ("mnist", "test", "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (gzipped or not) into mnist/"),
            ("fashion_mnist", "train", "into fashion_mnist/"),
            ("cifar10", "train", "cifar10/train/<class>/"),
            ("cifar10", "test", "cifar-10-batches-py"),
            ("pneumoniamnist", "val", "medmnist/pneumoniamnist.npz"),
        ],
    )
    def test_a_missing_set_says_where_its_files_go(self, name, split, file, tmp_path):
        with pytest.raises(MissingDataError) as caught:
            data.load(name, split=split, root=tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert file in str(caught.value)
        assert "faces" in str(caught.value)
        with pytest.raises(MissingDataError, match=r"cache/invertigo \(or set INVERTIGO_DATA"):
            data.load(name, split=split)


class TestIdx:
    @pytest.mark.parametrize("suffix", [".gz", ""])
    @pytest.mark.parametrize(("folder", "dash"), [("mnist", "-"), ("MNIST/raw", "."), ("mnist", ".")])
    def test_reads_what_was_written(self, tmp_path, suffix, folder, dash):
        images, labels = write_mnist(tmp_path / folder, suffix=suffix, dash=dash)
        found = data.load("mnist", root=tmp_path)
        np.testing.assert_allclose(found.images[:, 0].numpy() * 255, images, atol=1e-4)
        assert found.labels.tolist() == labels.tolist()
        assert not found.bundled

    def test_splits_and_garments(self, tmp_path):
        write_mnist(tmp_path / "FashionMNIST/raw", n=4)
        write_mnist(tmp_path / "FashionMNIST/raw", "t10k", n=5)
        assert len(data.load("fashion_mnist", root=tmp_path)) == 4
        found = data.load("fashion_mnist", root=tmp_path, split="test", size=14)
        assert found.images.shape == (5, 1, 14, 14)
        assert found.classes[9] == "Ankle boot"

    def test_a_limit_reads_no_further(self, tmp_path):
        images, _ = write_mnist(tmp_path / "mnist", suffix="")
        path = tmp_path / "mnist/train-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[: 16 + 3 * 784])
        np.testing.assert_array_equal(read_idx(path, ndim=3, limit=3), images[:3])
        with pytest.raises(CorruptFileError, match="2352 of 3136 bytes"):
            read_idx(path, ndim=3, limit=4)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda raw: raw[:-1],
            lambda raw: raw[:10],
            lambda raw: b"",
            lambda raw: b"\x89PNG" + raw[4:],
            lambda raw: raw[:4] + b"\xff" * 12 + raw[16:],
            lambda raw: raw[:3] + b"\x01" + raw[4:],
        ],
    )
    @pytest.mark.parametrize("suffix", [".gz", ""])
    def test_damage_is_reported(self, tmp_path, damage, suffix):
        write_mnist(tmp_path / "mnist", suffix=suffix)
        path = tmp_path / f"mnist/train-images-idx3-ubyte{suffix}"
        pack, unpack = (gzip.compress, gzip.decompress) if suffix else (bytes, bytes)
        path.write_bytes(pack(damage(unpack(path.read_bytes()))))
        with pytest.raises(CorruptFileError, match="train-images"):
            data.load("mnist", root=tmp_path)

    def test_a_truncated_or_fake_gzip_is_reported(self, tmp_path):
        write_mnist(tmp_path / "mnist")
        path = tmp_path / "mnist/train-images-idx3-ubyte.gz"
        whole = path.read_bytes()
        for content in (whole[: len(whole) // 2], b"not gzip at all", whole[:200] + bytes(200) + whole[400:]):
            path.write_bytes(content)
            with pytest.raises(CorruptFileError, match="train-images"):
                data.load("mnist", root=tmp_path)

    def test_images_and_labels_must_be_as_many(self, tmp_path):
        write_mnist(tmp_path / "mnist", n=4)
        (tmp_path / "mnist/train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(3, np.uint8))))
        with pytest.raises(MismatchError, match=r"4 images but .* has 3 labels"):
            data.load("mnist", root=tmp_path)


class TestMedMnist:
    def write(self, path: Path, shape=(5, 28, 28), labels=None, **more) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        images = RNG.integers(0, 256, shape, np.uint8)
        labels = np.arange(len(images), dtype=np.uint8)[:, None] % 2 if labels is None else labels
        np.savez_compressed(path, train_images=images, train_labels=labels, **more)
        return images

    def test_grey_and_colour(self, tmp_path):
        grey = self.write(tmp_path / "medmnist/pneumoniamnist.npz")
        found = data.load("pneumoniamnist", root=tmp_path, limit=4)
        np.testing.assert_allclose(found.images[:, 0].numpy() * 255, grey[:4], atol=1e-4)
        assert found.classes == ("normal", "pneumonia")
        colour = self.write(tmp_path / "bloodmnist.npz", (6, 28, 28, 3), np.arange(6)[:, None])
        found = data.load("bloodmnist", root=tmp_path, limit=2)
        np.testing.assert_allclose(found.images.numpy() * 255, colour[:2].transpose(0, 3, 1, 2), atol=1e-4)
        assert found.classes == tuple("012345")

    def test_a_limit_takes_the_classes_in_turn(self, tmp_path):
        labels = np.array([1, 1, 1, 1, 0, 0], np.uint8)[:, None]
        images = self.write(tmp_path / "pneumoniamnist.npz", (6, 28, 28), labels)
        found = data.load("pneumoniamnist", root=tmp_path, limit=5)
        assert found.labels.tolist() == [0, 1, 0, 1, 1]
        np.testing.assert_allclose(found.images[:, 0].numpy() * 255, images[[4, 0, 5, 1, 2]], atol=1e-4)
        assert data.load("pneumoniamnist", root=tmp_path).labels.tolist() == labels[:, 0].tolist()

    def test_any_file_of_that_kind_loads_by_its_name(self, tmp_path):
        self.write(tmp_path / "medmnist/mymnist_64.npz", (3, 64, 64))
        assert data.load("mymnist_64", root=tmp_path).shape == (1, 64, 64)

    def test_objects_are_never_unpickled(self, tmp_path):
        path = tmp_path / "pneumoniamnist.npz"
        np.savez(path, train_images=np.array([Bomb(tmp_path)], dtype=object), train_labels=np.zeros((1, 1), np.uint8))
        with pytest.raises(CorruptFileError, match="allow_pickle"):
            data.load("pneumoniamnist", root=tmp_path)
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize("cut", [0, 10, 0.5, 0.99])
    def test_truncation_is_reported(self, tmp_path, cut):
        path = tmp_path / "pneumoniamnist.npz"
        self.write(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
        with pytest.raises(CorruptFileError, match="pneumoniamnist"):
            data.load("pneumoniamnist", root=tmp_path)

    def test_a_lone_array_or_a_missing_split_is_reported(self, tmp_path):
        self.write(tmp_path / "pneumoniamnist.npz")
        with pytest.raises(CorruptFileError, match="val_images"):
            data.load("pneumoniamnist", root=tmp_path, split="val")
        with (tmp_path / "breastmnist.npz").open("wb") as file:
            np.save(file, np.zeros(3))
        with pytest.raises(CorruptFileError, match="breastmnist"):
            data.load("breastmnist", root=tmp_path)

    def test_several_labels_or_volumes_are_refused(self, tmp_path):
        self.write(tmp_path / "pathmnist.npz", labels=np.zeros((5, 14), np.uint8))
        with pytest.raises(InvalidValueError, match="14 labels"):
            data.load("pathmnist", root=tmp_path)
        self.write(tmp_path / "octmnist.npz", (5, 28, 28, 28))
        with pytest.raises(InvalidValueError, match=r"\(28, 28, 28\)"):
            data.load("octmnist", root=tmp_path)


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "exploded"),)


class TestCifarBatches:
    def write(self, folder: Path, name="data_batch_1", n=4, **changes) -> dict:
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            b"batch_label": b"training batch 1 of 5",
            b"labels": RNG.integers(0, 10, n).tolist(),
            b"data": RNG.integers(0, 256, (n, 3072), np.uint8),
            b"filenames": [b"%d.png" % i for i in range(n)],
        } | changes
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return content

    @pytest.mark.parametrize("folder", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py"])
    def test_reads_what_was_written(self, tmp_path, folder):
        written = [self.write(tmp_path / folder, f"data_batch_{i}") for i in range(1, 6)]
        test = self.write(tmp_path / folder, "test_batch", n=2)
        found = data.load("cifar10", root=tmp_path)
        assert found.images.shape == (20, 3, 32, 32)
        assert found.labels.tolist() == [label for batch in written for label in batch[b"labels"]]
        np.testing.assert_allclose(found.images[6].flatten().numpy() * 255, written[1][b"data"][2], atol=1e-4)
        assert data.load("cifar10", root=tmp_path, split="test").labels.tolist() == test[b"labels"]

    def test_python_2_files_are_read(self, tmp_path):
        # The published files: Python 2's str are SHORT_BINSTRING or BINSTRING opcodes, not unicode plus an encoder.
        pixels = bytes(range(256)) * 12
        array = (
            b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I1\nI3072\nt"
            b"cnumpy\ndtype\n(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntbI00\nT"
            + struct.pack("<i", 3072)
            + pixels
            + b"tb"
        )
        path = tmp_path / "cifar-10-batches-py/data_batch_1"
        path.parent.mkdir()
        path.write_bytes(b"\x80\x02}(U\x06labels](I7\neU\x04data" + array + b"u.")
        found = data.load("cifar10", root=tmp_path, limit=1)
        assert found.classes[found.labels[0]] == "horse"
        np.testing.assert_allclose(found.images.flatten().numpy() * 255, list(pixels), atol=1e-4)

    def test_a_limit_opens_only_the_files_it_needs(self, tmp_path):
        self.write(tmp_path / "cifar-10-batches-py")
        assert len(data.load("cifar10", root=tmp_path, limit=4)) == 4
        with pytest.raises(CorruptFileError, match="data_batch_2"):
            data.load("cifar10", root=tmp_path, limit=5)

    @pytest.mark.parametrize("where", [b"labels", b"data", b"extra"])
    def test_a_malicious_pickle_runs_nothing(self, tmp_path, where):
        content = self.write(tmp_path / "cifar-10-batches-py")
        content[where] = Bomb(tmp_path)
        path = tmp_path / "cifar-10-batches-py/data_batch_1"
        path.write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(CorruptFileError, match=r"asks to run (posix|nt)\.mkdir"):
            data.load("cifar10", root=tmp_path)
        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize(
        "attack",
        [
            b"\x80\x02cbuiltins\neval\n(U\x031+1tR.",
            b"\x80\x02cnumpy\nload\n(U\x01xtR.",
            b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
            b"\x80\x02c_codecs\nencode\n}(U\x08__init__c_codecs\nencode\nub.",
            b"\x80\x02cnumpy\ndtype\n(U\x01OtR.",
            b"\x80\x02cnumpy\nndarray\n(I99999999999\ntR.",
        ],
    )
    def test_no_other_way_in(self, tmp_path, attack):
        path = tmp_path / "batch"
        path.write_bytes(attack)
        with pytest.raises(CorruptFileError):
            read_batch(path)

    def test_damage_is_reported(self, tmp_path):
        folder = tmp_path / "cifar-10-batches-py"
        self.write(folder)
        whole = (folder / "data_batch_1").read_bytes()
        for content in (whole[:-100], whole[:20], b"", b"hello", whole.replace(b"u1", b"f4")):
            (folder / "data_batch_1").write_bytes(content)
            with pytest.raises(CorruptFileError, match="data_batch_1"):
                data.load("cifar10", root=tmp_path)

    @pytest.mark.parametrize("pixels", [np.zeros((3, 3072), np.uint8), np.zeros((4, 100), np.uint8)])
    def test_a_wrong_number_of_pixels_is_reported(self, tmp_path, pixels):
        content = self.write(tmp_path / "cifar-10-batches-py") | {b"data": pixels}
        (tmp_path / "cifar-10-batches-py/data_batch_1").write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(CorruptFileError, match="data_batch_1"):
            data.load("cifar10", root=tmp_path)


class TestFolder:
    def write(self, path: Path, mode="RGB", size=(8, 8), **options) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = len(Image.new(mode, (1, 1)).getbands())
        pixels = RNG.integers(0, 256, (size[1], size[0], bands), np.uint8)
        Image.fromarray(pixels.squeeze(), mode).save(path, **options)
        return pixels

    def test_classes_are_folders_and_take_turns(self, tmp_path):
        pixels = {f: self.write(tmp_path / f"pets/{f}") for f in ("cat/1.png", "cat/2.png", "cat/3.PNG", "dog/1.png")}
        (tmp_path / "pets/cat/notes.txt").write_text("not an image")
        (tmp_path / "pets/.cache").mkdir()
        found = data.load_image_folder(tmp_path / "pets")
        assert found.classes == ("cat", "dog")
        assert found.labels.tolist() == [0, 1, 0, 0]
        np.testing.assert_allclose(found.images[1].numpy() * 255, pixels["dog/1.png"].transpose(2, 0, 1), atol=1e-4)
        assert data.load_image_folder(tmp_path / "pets", limit=2).labels.tolist() == [0, 1]
        assert found.name == "pets"
        assert not found.bundled

    def test_only_what_the_limit_asks_for_is_decoded(self, tmp_path):
        self.write(tmp_path / "a/1.png")
        (tmp_path / "a/2.png").write_bytes(b"broken")
        assert len(data.load_image_folder(tmp_path, limit=1)) == 1
        with pytest.raises(CorruptFileError, match=r"2\.png"):
            data.load_image_folder(tmp_path)

    def test_cifar_folder_and_its_splits(self, tmp_path):
        for split, name in [("train", c) for c in CLASSES] + [("test", c) for c in CLASSES]:
            self.write(tmp_path / f"cifar10/{split}/{name}/0000.jpg", size=(32, 32))
        found = data.load("cifar10", root=tmp_path)
        assert found.images.shape == (10, 3, 32, 32)
        assert found.classes == CLASSES
        assert not torch.equal(found.images, data.load("cifar10", root=tmp_path, split="test").images)

    def test_a_folder_loads_by_name_or_by_path(self, tmp_path, monkeypatch):
        self.write(tmp_path / "sets/pets/train/cat/1.png")
        self.write(tmp_path / "sets/pets/val/cat/1.png")
        by_name = data.load("pets", root=tmp_path / "sets")
        assert torch.equal(by_name.images, data.load(str(tmp_path / "sets/pets")).images)
        assert not torch.equal(by_name.images, data.load("pets", root=tmp_path / "sets", split="val").images)
        monkeypatch.chdir(tmp_path)
        assert len(data.load("./sets/pets", size=5, limit=1)) == 1
        with pytest.raises(MissingDataError, match="split 'test'"):
            data.load("pets", root=tmp_path / "sets", split="test")
        with pytest.raises(MissingDataError, match="no image folder"):
            data.load("./nowhere")
        with pytest.raises(UnknownNameError):
            data.load("pest", root=tmp_path / "sets")

    def test_a_flat_folder_is_one_class(self, tmp_path):
        self.write(tmp_path / "holiday/1.png")
        assert data.load_image_folder(tmp_path / "holiday").classes == ("holiday",)

    @pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3)])
    def test_channels_follow_the_files(self, tmp_path, mode, channels):
        self.write(tmp_path / "a/1.png", mode)
        assert data.load_image_folder(tmp_path).shape == (channels, 8, 8)
        assert data.load_image_folder(tmp_path, channels=1).shape == (1, 8, 8)

    def test_one_colour_file_makes_the_set_colour(self, tmp_path):
        grey = self.write(tmp_path / "a/1.png", "L")
        self.write(tmp_path / "a/2.png", "RGB")
        found = data.load_image_folder(tmp_path)
        np.testing.assert_allclose(found.images[0].numpy() * 255, np.repeat(grey.transpose(2, 0, 1), 3, 0), atol=1e-4)

    def test_transparency_lies_on_white(self, tmp_path):
        (tmp_path / "a").mkdir()
        Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a/1.png")
        assert (data.load_image_folder(tmp_path).images == 1).all()

    def test_palettes_are_resolved(self, tmp_path):
        (tmp_path / "a").mkdir()
        picture = Image.new("RGB", (4, 4), (0, 128, 255))
        picture.quantize(8).save(tmp_path / "a/1.png")
        found = data.load_image_folder(tmp_path).images
        np.testing.assert_allclose(found[0, :, 0, 0].numpy() * 255, [0, 128, 255], atol=2)

    def test_sixteen_bits_are_not_clipped(self, tmp_path):
        (tmp_path / "a").mkdir()
        deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
        Image.fromarray(deep).save(tmp_path / "a/1.png")
        found = data.load_image_folder(tmp_path).images
        np.testing.assert_allclose(found[0, 0].numpy(), deep / 65535, atol=1e-6)
        assert data.load_image_folder(tmp_path, size=4, channels=3).shape == (3, 4, 4)

    def test_orientation_tags_are_applied(self, tmp_path):
        (tmp_path / "a").mkdir()
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (8, 4)).save(tmp_path / "a/1.jpg", exif=exif)
        assert data.load_image_folder(tmp_path).shape == (3, 8, 4)

    def test_mixed_sizes_need_a_size(self, tmp_path):
        self.write(tmp_path / "a/1.png", size=(8, 8))
        self.write(tmp_path / "a/2.png", size=(20, 10))
        with pytest.raises(MismatchError, match="size="):
            data.load_image_folder(tmp_path)
        assert data.load_image_folder(tmp_path, size=6).shape == (3, 6, 6)

    def test_resizing_keeps_the_central_square(self, tmp_path):
        (tmp_path / "a").mkdir()
        strip = np.zeros((8, 24, 3), np.uint8)
        strip[:, 8:16] = 255
        Image.fromarray(strip).save(tmp_path / "a/1.png")
        assert (data.load_image_folder(tmp_path, size=8).images == 1).all()

    @pytest.mark.parametrize("suffix", ["png", "jpg", "bmp"])
    def test_truncated_files_are_named(self, tmp_path, suffix):
        path = tmp_path / f"a/1.{suffix}"
        self.write(path, size=(64, 64))
        path.write_bytes(path.read_bytes()[:600])
        with pytest.raises(CorruptFileError, match=rf"1\.{suffix}"):
            data.load_image_folder(tmp_path)

    def test_floating_point_pixels_are_refused(self, tmp_path):
        (tmp_path / "a").mkdir()
        Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a/1.tiff")
        with pytest.raises(InvalidValueError, match="floating-point"):
            data.load_image_folder(tmp_path)

    def test_an_empty_or_absent_folder_is_reported(self, tmp_path):
        with pytest.raises(MissingDataError, match="holds no images"):
            data.load_image_folder(tmp_path)
        with pytest.raises(MissingDataError, match="no image folder"):
            data.load_image_folder(tmp_path / "absent")
