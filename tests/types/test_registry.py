from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from invertigo.types import Registry, UnknownNameError
from invertigo.types import registry as module


def shelf() -> Registry[object]:
    registry: Registry[object] = Registry("shelf", "book")
    registry.register("faust")("Goethe")
    registry.register("emma")("Austen")
    return registry


@pytest.fixture
def plugins(monkeypatch):
    """Pretend that another package is installed that offers these entry points."""

    def install(**offered: str) -> list[str]:
        asked: list[str] = []

        def entry_points(*, group: str) -> EntryPoints:
            asked.append(group)
            return EntryPoints(EntryPoint(name, value, "invertigo.shelf") for name, value in offered.items())

        monkeypatch.setattr(module, "entry_points", entry_points)
        return asked

    return install


def test_entries_are_found_by_name_and_listed_in_order():
    registry = shelf()
    assert registry["emma"] == "Austen"
    assert list(registry) == ["emma", "faust"]
    assert len(registry) == 2
    assert "faust" in registry
    assert "ulysses" not in registry


def test_a_name_is_taken_once():
    registry = shelf()
    with pytest.raises(ValueError, match="book 'emma' is registered twice"):
        registry.register("emma")("someone else")


def test_registering_the_same_thing_again_is_no_conflict():
    registry: Registry[object] = Registry("shelf", "book")
    entry = object()
    registry.register("x")(entry)
    assert registry.register("x")(entry) is entry


def test_a_typo_gets_a_suggestion_and_the_list():
    with pytest.raises(UnknownNameError, match=r"no book 'fuast'\. Did you mean 'faust'\? Known: emma, faust"):
        shelf()["fuast"]


def test_an_empty_registry_says_so():
    with pytest.raises(UnknownNameError, match="Known: none"):
        Registry("shelf", "book")["faust"]


def test_entry_points_of_other_packages_are_loaded(plugins):
    asked = plugins(plato="collections:OrderedDict")
    registry = shelf()
    from collections import OrderedDict

    assert registry["plato"] is OrderedDict
    assert asked == ["invertigo.shelf"]


def test_entry_points_are_read_once_and_only_when_needed(plugins):
    asked = plugins()
    registry = shelf()
    assert asked == []
    assert list(registry) == ["emma", "faust"]
    assert len(registry) == 2
    assert len(asked) == 1


def test_a_plugin_cannot_replace_what_is_built_in(plugins):
    plugins(emma="collections:OrderedDict")
    assert shelf()["emma"] == "Austen"
