"""One registry per room: names to classes, filled by a decorator and by other packages' entry points."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from invertigo.types.errors import ConfigurationError, UnknownNameError, did_you_mean

T = TypeVar("T")
C = TypeVar("C")


class Registry(Generic[T]):
    """Names of one kind of thing, found by decorator or through the entry points `invertigo.<room>`."""

    def __init__(self, room: str, kind: str) -> None:
        self.room, self.kind = room, kind
        self._entries: dict[str, T] = {}
        self._plugins_loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files its target under `name`; a name can be taken once only."""

        def file(entry: T) -> T:
            if self._entries.setdefault(name, entry) is not entry:
                raise ValueError(f"{self.kind} '{name}' is registered twice; choose another name.")
            return entry

        return file

    def __getitem__(self, name: str) -> T:
        self._load_plugins()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownNameError(
                f"There is no {self.kind} '{name}'.{did_you_mean(name, self)}"
                f" Known: {', '.join(sorted(self)) or 'none'}."
            ) from None

    def __contains__(self, name: str) -> bool:
        self._load_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._load_plugins()
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        self._load_plugins()
        return len(self._entries)

    def enter(self, cls: C) -> C:
        """Class decorator that files a class under its own `name`."""
        self.register(cls.name)(cls)  # type: ignore[attr-defined, arg-type]
        return cls

    def make(self, wanted: Any, **settings: Any) -> Any:
        """An instance of the class filed under the name `wanted`, with these settings; an instance is passed through.

        Raises: UnknownNameError for the name, ConfigurationError for a setting that the class does not have, or that
            was given beside an instance.
        """
        if not isinstance(wanted, str):
            if settings:
                raise ConfigurationError(
                    f"Hyper-parameters {sorted(settings)} were given beside the {self.kind} '{wanted.name}' as an "
                    "object, which has its own; give its name, or set them when you build it."
                )
            return wanted
        name = wanted
        cls: Any = self[name]
        known = {field.name for field in dataclasses.fields(cls)}
        for setting in settings:
            if setting not in known:
                raise ConfigurationError(
                    f"{self.kind.capitalize()} '{name}' has no hyper-parameter '{setting}'."
                    f"{did_you_mean(setting, known)} It has: {', '.join(sorted(known)) or 'none'}."
                )
        return cls(**settings)

    def _load_plugins(self) -> None:
        if self._plugins_loaded:
            return
        self._plugins_loaded = True
        for point in entry_points(group=f"invertigo.{self.room}"):
            if point.name not in self._entries:
                self._entries[point.name] = point.load()
