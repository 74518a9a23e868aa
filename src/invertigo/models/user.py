"""The user's own models: by import path, or as they are."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from invertigo.models.building import build, checked_classes, checked_shape, weights_drawn_by
from invertigo.types import ConfigurationError, UnknownNameError, did_you_mean


def resolve(
    model: str | nn.Module,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    generator: torch.Generator | None = None,
    **options: object,
) -> nn.Module:
    """A model from whatever names one: a registered name, an import path `package.module:factory`, or itself.

    A factory is given `input_shape` and `num_classes` if it has parameters of these names, and the options.
    """
    if isinstance(model, nn.Module):
        if options:
            raise ConfigurationError(
                f"Options {', '.join(options)} were given with a model that is built already; set them before."
            )
        return model
    if ":" not in model:
        return build(model, input_shape=input_shape, num_classes=num_classes, generator=generator, **options)
    domain = "graphs" if len(input_shape) == 2 else "images"
    facts = {"input_shape": checked_shape(input_shape, domain), "num_classes": checked_classes(num_classes)}
    return _load(model, options, facts, generator)


def load_factory(path: str, **kwargs: object) -> nn.Module:
    """The model that `package.module:factory` makes of `kwargs`; the working directory is on the import path.

    Args:
        path: Module and name in it, separated by a colon; the name is a function or class that returns an
            `nn.Module`, or such a module itself.
        kwargs: Passed to the factory.

    Raises: ConfigurationError, UnknownNameError when there is no such module or no such name in it.
    """
    return _load(path, kwargs, {}, None)


def _load(
    path: str, kwargs: dict[str, object], facts: dict[str, object], generator: torch.Generator | None
) -> nn.Module:
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ConfigurationError(f"'{path}' is no import path; write package.module:factory, e.g. my_models:make_net.")
    with _working_directory_importable():
        # A module may draw numbers while it is imported, which happens once only; the model's must not depend on it.
        with weights_drawn_by(generator):
            found = _attribute(_module(module_name, path), attribute, path)
        with weights_drawn_by(generator):
            model = found if isinstance(found, nn.Module) else _call(found, kwargs, facts, path)
    if not isinstance(model, nn.Module):
        raise ConfigurationError(
            f"'{path}' gave a {type(model).__name__}, not a torch.nn.Module; return the model itself."
        )
    return model


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    before, compiles = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(Path.cwd()))
    importlib.invalidate_caches()
    # A file that is edited twice within a second looks unchanged to whoever wrote down its compiled form.
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = before, compiles


def _module(name: str, path: str) -> Any:
    try:
        return _the_one_here(importlib.import_module(name), path)
    except ModuleNotFoundError as error:
        absent = error.name or name
        if absent == name or name.startswith(f"{absent}."):
            raise UnknownNameError(
                f"There is no module '{absent}', which '{path}' names. Run from its folder, or install it."
            ) from error
        raise ConfigurationError(f"Module '{name}' needs '{absent}', which is not installed.") from error
    except ConfigurationError:
        raise
    # Whatever the user's module raises while it is imported is the user's to read, with the reason it was imported.
    except Exception as error:
        raise ConfigurationError(f"Importing '{name}' for '{path}' failed: {type(error).__name__}: {error}") from error


def _the_one_here(module: Any, path: str) -> Any:
    """Refuse a module that merely has the name of a file in the working folder. Raises: ConfigurationError."""
    here = Path.cwd() / module.__name__.replace(".", "/")
    files = [file for file in (here / "__init__.py", here.with_name(f"{here.name}.py")) if file.is_file()]
    loaded = getattr(module, "__file__", None)
    if files and not (loaded and any(Path(loaded).resolve() == file.resolve() for file in files)):
        raise ConfigurationError(
            f"'{path}' names {files[0]}, but Python has another module of that name: {loaded or 'a built-in one'}. "
            "It would be used in place of yours; give your file another name."
        )
    return module


def _attribute(module: Any, attribute: str, path: str) -> Any:
    try:
        return reduce(getattr, attribute.split("."), module)
    except AttributeError as error:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UnknownNameError(
            f"Module '{module.__name__}' has no '{attribute}', which '{path}' names.{did_you_mean(attribute, public)}"
        ) from error


def _call(factory: Any, kwargs: dict[str, object], facts: dict[str, object], path: str) -> Any:
    if not callable(factory):
        raise ConfigurationError(
            f"'{path}' is a {type(factory).__name__}; name a function or class that makes the model."
        )
    wanted = _parameters(factory)
    arguments = {name: value for name, value in facts.items() if name in wanted} | kwargs
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ConfigurationError(
            f"'{path}' cannot be called with {', '.join(arguments) or 'no arguments'}: {error}. "
            f"It takes {', '.join(wanted) or 'none'}."
        ) from error
    return factory(**arguments)


def _parameters(factory: Callable[..., Any]) -> list[str]:
    return [p.name for p in inspect.signature(factory).parameters.values() if p.kind is not p.VAR_KEYWORD]
