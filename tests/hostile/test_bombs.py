"""Files that are small on disk and endless, or huge, once somebody reads them."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
import zlib

import numpy as np
import pytest

from invertigo import data
from invertigo.auditing.scenario import load_scenario
from invertigo.types import ConfigurationError, CorruptFileError, InvertigoError, read_tensors
from invertigo.types.untrusted import read_yaml


@pytest.fixture(autouse=True)
def _bounded():
    """Every bomb is refused in seconds and in less than a gibibyte."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - started < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20


def laughs(levels: int = 12) -> str:
    lines = ["a0: &a0 [ha, ha]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels))]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        *(laughs(), "a: &a [*a]", "[" * 5000, "a: " + "{b: " * 200 + "1" + "}" * 200),
        *("a: 2001-99-99", "? [a]\n: b", "x" * 2_000_000),
    ],
)
def test_yaml_that_swells_or_holds_itself_is_refused(text, tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError):
        load_scenario(file)


def test_a_setting_is_read_through_the_same_door(tmp_path):
    with pytest.raises(ConfigurationError, match="YAML"):
        load_scenario("demo", ["title=" + "[" * 3000])


def test_plain_aliases_still_work():
    assert read_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


def test_a_scenario_that_compares_itself_ends(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(f"data: {{name: digits}}\ncompare: ['{file}']\n")
    (companion,) = load_scenario(file).companions()
    assert companion.compare == []


@pytest.mark.parametrize("key", ["local.epochs", "model.trained_epochs", "reader_epochs", "utility.rounds"])
def test_a_training_without_end_is_refused_before_it_starts(key):
    extra = ["local.sends=difference"] if key == "local.epochs" else []
    with pytest.raises(ConfigurationError, match=r"10.?000"):
        load_scenario("demo", [*extra, f"{key}=100000000"])


def doubling(how: str) -> bytes:
    """A tuple of twice the same tuple, sixty times over, as a key: hashing it takes 2^60 steps."""
    twice = b"2\x86" if how == "duplicated" else b"q\x01h\x01\x86"
    return b"\x80\x02}" + b"K\x01\x85" + twice * 60 + b"K\x01s."


@pytest.mark.parametrize("how", ["duplicated", "remembered"])
def test_pickles_that_hold_themselves_twice_over_are_refused(how, tmp_path):
    for name, read in (("g", data.citeseer.read_inert), ("b", data.cifar.read_batch)):
        (tmp_path / name).write_bytes(doubling(how))
        with pytest.raises(CorruptFileError, match="endlessly"):
            read(tmp_path / name)


def test_a_published_pickle_is_still_read(tmp_path):
    content = {b"data": np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072), b"labels": [3, 5]}
    (tmp_path / "b").write_bytes(pickle.dumps(content, protocol=2))
    pixels, labels = data.cifar.read_batch(tmp_path / "b")
    assert labels == [3, 5]
    np.testing.assert_array_equal(pixels, content[b"data"])


def test_a_picture_of_many_pixels_is_refused_by_its_header(tmp_path):
    (tmp_path / "a").mkdir()
    header = struct.pack(">II5B", 13000, 13000, 8, 2, 0, 0, 0)
    blocks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(39001) * 20)), (b"IEND", b"")]
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in blocks
    )
    (tmp_path / "a/x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + made)
    with pytest.raises(CorruptFileError, match="13000x13000"):
        data.load_image_folder(tmp_path)


def test_a_gzip_that_swells_is_refused(tmp_path):
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(struct.pack(">4B3I", 0, 0, 8, 3, 1, 2**16, 2**15) + bytes(2**20))
    (tmp_path / "x.gz").write_bytes(packed.getvalue())
    with pytest.raises(CorruptFileError, match="not an intact IDX"):
        data.idx.read_idx(tmp_path / "x.gz", ndim=3, limit=1)


def npz(path, images: np.ndarray | bytes, labels: np.ndarray) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in (("train_images", images), ("train_labels", labels)):
            text = io.BytesIO()
            np.save(text, array) if isinstance(array, np.ndarray) else text.write(array)
            archive.writestr(f"{name}.npy", text.getvalue())


def test_an_archive_is_read_only_as_far_as_asked(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (4, 2**14, 2**15)})
    npz(tmp_path / "pneumoniamnist.npz", header.getvalue(), np.zeros((4, 1), np.uint8))
    with pytest.raises(CorruptFileError):
        data.load("pneumoniamnist", root=tmp_path, limit=4)


def test_a_label_beyond_all_classes_is_refused(tmp_path):
    npz(tmp_path / "theirs.npz", np.zeros((2, 4, 4), np.uint8), np.array([[0], [2**62]]))
    with pytest.raises(CorruptFileError, match="classes are numbered"):
        data.load("theirs", root=tmp_path)


def test_thirteen_bytes_of_graphs_do_not_fill_the_memory(tmp_path):
    (tmp_path / "g.txt").write_text("1\n9999999 0\n")
    with pytest.raises(CorruptFileError, match="9999999 nodes"):
        data.social.read_graph_text(tmp_path / "g.txt")


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for read in (load_scenario, read_tensors, data.cifar.read_batch, data.load_smiles):
        with pytest.raises(InvertigoError, match="no regular file"):
            read(tmp_path / "pipe.yaml")


def test_the_current_folder_cannot_stand_in_for_a_library(tmp_path):
    (tmp_path / "yaml.py").write_text("raise SystemExit('ran')")
    (tmp_path / "rich.py").write_text("raise SystemExit('ran')")
    command = [sys.executable, "-m", "invertigo", "show", "demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
