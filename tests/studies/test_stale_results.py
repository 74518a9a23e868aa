"""What a cell rests on is changed, one thing at a time, and its key must change; what does not matter must not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from grids import BASE, study

from invertigo.auditing.scenario import Scenario
from invertigo.studies import artifacts, house
from invertigo.studies.expansion import expand
from invertigo.studies.run import run_study
from invertigo.studies.sources import reach
from invertigo.studies.store import Store
from invertigo.types import ConfigurationError, MissingDataError, UnknownNameError

NETS = """
from torch import nn
from parts.layers import body

def make():
    return nn.Sequential(nn.Flatten(), body())
"""
BODY = """
from torch import nn
from .sizes import width

def body():
    return nn.Sequential(nn.Linear(64, width()), nn.ReLU(), nn.Linear(width(), 10))
"""
SIZES = "def width():\n    return 16\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with a factory that imports a helper of a package, which imports another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "parts" / "layers.py").write_text(BODY)
    (tmp_path / "parts" / "sizes.py").write_text(SIZES)
    (tmp_path / "my_nets.py").write_text(NETS)
    yield tmp_path
    for name in ("my_nets", "parts", "parts.layers", "parts.sizes"):
        sys.modules.pop(name, None)


def key(base: dict | None = None, **changes) -> str:
    (cell,) = expand(study(base={**BASE, "attacks": ["linear_layer"], **(base or {}), **changes}, axes={}, seeds=[0]))
    return cell.key


def own(**changes) -> str:
    return key(model={"factory": "my_nets:make"}, **changes)


def test_the_factory_and_whatever_it_imports_however_far(home):
    before = own()
    for file, old, new in [
        ("my_nets.py", "nn.Flatten()", "nn.Flatten(), nn.Identity()"),
        ("parts/layers.py", "nn.ReLU", "nn.Tanh"),
        ("parts/sizes.py", "16", "17"),
    ]:
        source = (home / file).read_text()
        (home / file).write_text(source.replace(old, new))
        assert own() != before, file
        (home / file).write_text(source)
        assert own() == before, file


@pytest.mark.parametrize(
    "line", ["def width():\n    import depth\n    return depth.D\n", "import depth\n", "from depth import D\n"]
)
def test_an_import_is_followed_wherever_it_stands(home, line):
    (home / "depth.py").write_text("D = 16\n")
    (home / "parts" / "sizes.py").write_text(line + SIZES)
    before = own()
    (home / "depth.py").write_text("D = 17\n")
    assert own() != before


def test_a_file_that_the_source_names_and_one_beside_the_code_of_a_package(home):
    (home / "tables").mkdir()
    (home / "tables" / "start.bin").write_bytes(b"one")
    (home / "parts" / "prior.bin").write_bytes(b"one")
    (home / "my_nets.py").write_text(NETS + "PATH = __file__ and 'tables' and 'start.bin'\n")
    before = own()
    for file in ("tables/start.bin", "parts/prior.bin"):
        (home / file).write_bytes(b"two")
        assert own() != before, file
        (home / file).write_bytes(b"one")
        assert own() == before


def test_a_package_of_ones_own_is_found_without_a_working_folder_on_the_path(home, monkeypatch):
    (home / "mypkg").mkdir()
    (home / "mypkg" / "__init__.py").write_text("from my_nets import make\n")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(home))])
    before = key(model={"factory": "mypkg:make"})
    (home / "mypkg" / "__init__.py").write_text("from my_nets import make\nX = 1\n")
    assert key(model={"factory": "mypkg:make"}) != before


def test_a_file_with_the_name_of_an_installed_package_counts_by_its_own_content(home):
    (home / "jinja2.py").write_text(NETS)
    assert reach("jinja2", here=True).files["jinja2"] == home / "jinja2.py"
    before = key(model={"factory": "jinja2:make"})
    (home / "jinja2.py").write_text(NETS.replace("Flatten()", "Flatten(1)"))
    assert key(model={"factory": "jinja2:make"}) != before
    import jinja2  # noqa: F401  as something else in this process has it

    from invertigo.models import load_factory

    with pytest.raises(ConfigurationError, match="give your file another name"):
        load_factory("jinja2:make")


def test_a_plug_in_that_is_installed_from_a_checkout(home, monkeypatch):
    """Its version stays; its file is imported from elsewhere, and what it imports is followed."""
    from invertigo import attacks

    checkout = home / "checkout"
    checkout.mkdir()
    (checkout / "plugged.py").write_text(
        "from dataclasses import dataclass\nfrom plugged_steps import SIZE\nfrom invertigo import attacks\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Plugged(attacks.registry['dlg']):\n    size: int = SIZE\n"
    )
    (checkout / "plugged_steps.py").write_text("SIZE = 1\n")
    monkeypatch.syspath_prepend(str(checkout))
    import plugged  # pyright: ignore

    monkeypatch.setitem(attacks.registry._entries, "plugged", plugged.Plugged)
    before = key(attacks=["plugged"])
    (checkout / "plugged_steps.py").write_text("SIZE = 2\n")
    assert key(attacks=["plugged"]) != before


def test_a_set_that_a_plug_in_reads_counts_by_the_code_that_reads_it(home, monkeypatch):
    from invertigo import data

    (home / "my_sets.py").write_text(
        "import torch\n\ndef read(request):\n    return torch.rand(40, 1, 8, 8), torch.arange(40) % 2, ('a', 'b')\n"
    )
    monkeypatch.syspath_prepend(str(home))
    import my_sets  # pyright: ignore

    source = data.ImageSource("mine", "", ("train",), "", my_sets.read)
    monkeypatch.setitem(data.registry._entries, "mine", source)
    before = key(data={"name": "mine"})
    (home / "my_sets.py").write_text((home / "my_sets.py").read_text().replace("rand(", "randn("))
    assert key(data={"name": "mine"}) != before


def test_the_files_of_a_data_set(home, monkeypatch):
    store = home / "data"
    store.mkdir()
    monkeypatch.setenv("INVERTIGO_DATA", str(store))
    pixels = np.zeros((9, 8, 8), np.uint8)
    medmnist(store / "pneumoniamnist.npz", pixels)
    before = key(data={"name": "pneumoniamnist"})
    stamps, content = os.stat(store / "pneumoniamnist.npz"), (store / "pneumoniamnist.npz").read_bytes()
    pixels[3, 2, 2] = 1
    medmnist(store / "pneumoniamnist.npz", pixels)
    os.utime(store / "pneumoniamnist.npz", ns=(stamps.st_atime_ns, stamps.st_mtime_ns))  # as a copy that keeps times
    assert key(data={"name": "pneumoniamnist"}) != before
    (store / "pneumoniamnist.npz").write_bytes(content)
    assert key(data={"name": "pneumoniamnist"}) == before


def medmnist(path: Path, pixels: np.ndarray) -> None:
    parts = {
        f"{split}_{what}": pixels if what == "images" else np.arange(len(pixels))[:, None] % 2
        for split in ("train", "val", "test")
        for what in ("images", "labels")
    }
    np.savez(path, **parts)


def test_the_images_of_a_folder_of_ones_own(home):
    from PIL import Image

    for label in ("cats", "dogs"):
        (home / "pets" / label).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (8, 8), 20 * i).save(home / "pets" / label / f"{i}.png")
    before = key(data={"name": "./pets"})
    assert key(data={"name": str(home / "pets")}) == before, "a path is not what a set is made of"
    Image.new("L", (8, 8), 99).save(home / "pets" / "cats" / "0.png")
    changed = key(data={"name": "./pets"})
    assert changed != before
    Image.new("L", (8, 8), 0).save(home / "pets" / "cats" / "0.png")
    assert key(data={"name": "./pets"}) == before
    Image.new("L", (8, 8), 0).save(home / "pets" / "cats" / "4.png")
    assert key(data={"name": "./pets"}) != before
    (home / "pets" / "cats" / "4.png").unlink()
    (home / "pets" / "cats").rename(home / "pets" / "hats")
    assert key(data={"name": "./pets"}) != before


def test_weights_and_any_file_that_a_setting_names_by_what_is_in_it(home):
    (home / "w.safetensors").write_bytes(b"one")
    before = key(model={"name": "mlp", "weights": "w.safetensors"})
    (home / "elsewhere").mkdir()
    (home / "elsewhere" / "w2.safetensors").write_bytes(b"one")
    assert key(model={"name": "mlp", "weights": "elsewhere/w2.safetensors"}) == before
    (home / "w.safetensors").write_bytes(b"two")
    assert key(model={"name": "mlp", "weights": "w.safetensors"}) != before
    (home / "start.pt").write_bytes(b"one")
    options = {"factory": "my_nets:make", "options": {"start": "start.pt"}}
    before = key(model=options)
    (home / "start.pt").write_bytes(b"two")
    assert key(model=options) != before


def test_the_versions_of_what_computes(home, monkeypatch):
    import torch

    before = key()
    with monkeypatch.context() as changed:
        changed.setattr(torch, "__version__", "9.9.9")
        assert key() != before
    real = house._version
    for name in house.NUMERIC:
        with monkeypatch.context() as changed:
            changed.setattr(house, "_version", lambda asked, name=name: "9.9" if asked == name else real(asked))
            assert key() != before, name
    assert key() == before


def test_the_version_of_torch_is_known_without_importing_it():
    import torch

    code = "import sys; from invertigo.studies.house import torch_version as v; print(v(), 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == [torch.__version__, "False"]


def test_the_source_of_invertigo(home, monkeypatch):
    package = home / "copy" / "invertigo"
    real = Path(house.__file__).parents[1]
    for file in house.own_files(real):
        (package / file.relative_to(real)).parent.mkdir(parents=True, exist_ok=True)
        (package / file.relative_to(real)).write_bytes(file.read_bytes())
    (package / "report").mkdir(exist_ok=True)
    monkeypatch.setattr(house, "__file__", str(package / "studies" / "house.py"))
    before = house.own_print()
    engine = package / "attacks" / "labels.py"
    source = engine.read_text()
    engine.write_text("# a remark\n\n" + source + "\n    # another\n")
    (package / "report" / "new.py").write_text("X = 1\n")
    assert house.own_print() == before, "neither a comment nor a way of showing results changes a number"
    engine.write_text(source + "\nX = 1\n")
    assert house.own_print() != before
    engine.write_text(source)
    (package / "data" / "new.csv").write_text("1\n")
    assert house.own_print() != before


def test_what_runs_a_cell_imports_nothing_that_does_not_count():
    """A room that is left out of the fingerprint must not be able to change a number."""
    import ast

    root = Path(house.__file__).parents[1]
    for file in house.own_files(root):
        if file.suffix != ".py" or file.relative_to(root).parts[0] == "studies":
            continue
        for node in ast.parse(file.read_text()).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            rooms = {name.split(".")[1] for name in names if name.startswith("invertigo.")}
            assert not rooms & house.SHOWS, (file, rooms)


def test_what_does_not_matter(home, monkeypatch):
    before = own()
    for file in ("my_nets.py", "parts/sizes.py"):
        source = (home / file).read_text()
        (home / file).write_text("# why\n\n" + source.replace("\n", "  # so\n", 1) + "\n\n")
    (home / "unrelated.py").write_text("X = 1\n")
    (home / "parts" / "layers.py").touch()
    assert own() == before
    monkeypatch.chdir(Path("/"))
    monkeypatch.syspath_prepend(str(home))
    assert own() == before
    assert own(title="Another", budget="9s") == before


def test_text_in_the_source_is_no_comment(home):
    (home / "parts" / "sizes.py").write_text('T = """a\n\n# b"""\n' + SIZES)
    before = own()
    for other in ('T = """a\n# b"""\n', 'T = """a\n\n# c"""\n', 'T = """a \n\n# b"""\n'):
        (home / "parts" / "sizes.py").write_text(other + SIZES)
        assert own() != before


def test_an_edited_helper_is_computed_anew_within_one_process(home):
    """The edit keeps the file's length and falls into the same second, so that compiled code would look current."""
    small = {**BASE, "model": {"factory": "my_nets:make"}, "attacks": [{"name": "dlg", "iterations": 3}]}
    asked = study(base=small, axes={}, seeds=[0])
    assert run_study(asked, home / "out").done == 1
    assert run_study(asked, home / "out").reused == 1
    (home / "parts" / "sizes.py").write_text(SIZES.replace("16", "17"))
    assert run_study(asked, home / "out").done == 1
    first, second = (Store(home / "out").load(path.name) for path in (home / "out" / "cells").iterdir())
    widths = set()
    for found in (first, second):
        assert found.record is not None
        widths.add(tuple(found.record.attacks[0].scores["psnr"]))
    assert len(widths) == 2
    import parts.sizes  # pyright: ignore

    assert parts.sizes.width() == 17


def test_a_worker_whose_code_is_another_runs_nothing(home):
    from invertigo.studies.cells import Job, work

    base = {**BASE, "model": {"factory": "my_nets:make"}, "attacks": ["linear_layer"]}
    (cell,) = expand(study(base=base, axes={}, seeds=[0]))
    (home / "parts" / "sizes.py").write_text(SIZES.replace("16", "17"))
    Store(home / "out").place.prepare()
    outcome = work(str(home / "out"), Job(cell), 1)
    assert outcome.status == "unfit"
    assert "factory my_nets" in outcome.error
    assert list((home / "out" / "cells").iterdir()) == []


GRAPHS = {"data": {"name": "drugs", "count": 1, "public_count": 12}, "model": {"name": "gcn", "trained_epochs": 1}}


def test_a_victim_is_made_of_all_that_its_training_reads(home):
    """By construction: its scenario is what its training gets, and only what is read afterwards is left out of it."""
    sizes = [{"label": str(n), "set": {"data.nodes": n}} for n in ([1, 12], [13, 20])]
    cells = expand(study(base={**BASE, **GRAPHS, "attacks": ["grain"]}, axes={"nodes": sizes}, seeds=[0]))
    assert len({cell.needs for cell in cells}) == 2
    config = dict(cells[0].config)
    left_out = set(Scenario.model_fields) - set(artifacts.victim_of(config) or {})
    assert left_out == artifacts._AFTERWARDS - {"defense", "adversary"}
    for change in ({"seed": 1}, {"normalise": True}, {"dtype": "float64"}, {"data": {**config["data"], "limit": 50}}):
        assert artifacts.victim_of({**config, **change}) != artifacts.victim_of(config), change
    assert artifacts.victim_of({**config, "something_new": 1}) != artifacts.victim_of(config)
    assert artifacts.victim_of({**config, "decoys": 9, "local": {}}) == artifacts.victim_of(config)


def test_a_victim_of_graphs_has_not_seen_the_private_ones(home):
    from invertigo.auditing.staging import stage

    for nodes in ((1, 14), (15, 25)):
        config = Scenario.model_validate(
            {**BASE, **GRAPHS, "attacks": ["grain"], "data": {**GRAPHS["data"], "nodes": nodes, "pool": 2}}
        ).resolved()
        alone = stage(Scenario.model_validate(config)).task.model.state_dict()
        shared = artifacts.train_victim(artifacts.victim_of(config) or {})
        assert all((alone[name] == tensor).all() for name, tensor in shared.items())


def test_data_and_modules_that_are_not_there_are_told_before_anything_runs(home, monkeypatch):
    monkeypatch.setenv("INVERTIGO_DATA", str(home / "nowhere"))
    missing = study(base={**BASE, "attacks": ["linear_layer"]}, axes={"data.name": ["digits", "bloodmnist"]}, seeds=[0])
    assert len(expand(missing)) == 2
    with pytest.raises(MissingDataError, match="bloodmnist"):
        run_study(missing, home / "out")
    gone = study(base={**BASE, "attacks": ["linear_layer"], "model": {"factory": "gone:make"}}, axes={}, seeds=[0])
    with pytest.raises(UnknownNameError, match="no module 'gone'"):
        run_study(gone, home / "out")
    assert not (home / "out" / "cells").exists()


@pytest.mark.parametrize("named", [None, "~/sets", "/sets"])
def test_the_places_of_data_are_those_that_loading_looks_in(monkeypatch, tmp_path, named):
    from invertigo.data.locate import places
    from invertigo.studies.prints import data_places

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("INVERTIGO_DATA", named) if named else monkeypatch.delenv("INVERTIGO_DATA", raising=False)
    assert data_places() == places()
