"""What a cell names: checked before anything runs, and its schedules written out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invertigo import attacks, data, defenses, models
from invertigo.auditing.guarded import adversaries
from invertigo.auditing.scenario import GuardedSection
from invertigo.data.locate import places
from invertigo.models.building import check_options
from invertigo.studies.contents import contents
from invertigo.studies.identity import canonical
from invertigo.types import ConfigurationError, InvertigoError, Requirement


@dataclass
class Plugins:
    """Looks up the attacks, models and data of cells; what many cells share is looked up once."""

    checked: bool = False
    """Data are read and a model's module is looked for; else what is not there counts as missing."""
    _seen: dict[str, Any] = field(default_factory=dict)

    def settled(self, config: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """`config` with every attack's schedule written out, after checking all that it names.

        Raises: UnknownNameError, ConfigurationError; `where` says at which point of the study.
        """
        try:
            self._once("model", config["model"], _check_model)
            self._once("data", config["data"]["name"], _check_data)
            defense = self._once("defense", config["defense"], _defense)
            self._once("guarded", config.get("guarded"), _check_guarded)
            return {**config, "attacks": self._once("attacks", config["attacks"], _explicit), "defense": defense}
        except InvertigoError as error:
            raise type(error)(f"{error} (at {where})" if where else str(error)) from error

    def contents(self, config: Mapping[str, Any], where: str = "") -> dict[str, str]:
        """Fingerprints of all that `config` rests on, see `contents`; part of a cell's identity.

        Raises: with `checked`, MissingDataError and others for data that cannot be read.
        """
        try:
            return contents(config, self._once, checked=self.checked)
        except InvertigoError as error:
            raise type(error)(f"{error} (at {where})" if where else str(error)) from error

    def _once(self, what: str, value: Any, read: Any) -> Any:
        name = f"{what} {canonical(value)}"
        if name not in self._seen:
            self._seen[name] = read(value)
        return self._seen[name]


def _explicit(wanted: Any) -> list[dict[str, Any]]:
    """Attacks whose length does not depend on the speed of the machine."""
    if wanted == "auto":
        raise ConfigurationError(
            "`attacks: auto` fits attacks to the time that this machine has, so two machines would disagree. "
            "Name the attacks of a study, in the base or on an axis."
        )
    return [_pinned({"name": one} if isinstance(one, str) else dict(one)) for one in wanted]


def _pinned(wanted: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in wanted.items() if name != "name"}
    searches = wanted["name"] in attacks.registry and attacks.registry[wanted["name"]].exact
    if wanted["name"] == "auto" or (settings.get("seconds") is not None and not searches):
        raise ConfigurationError(
            f"Attack '{wanted['name']}' is bound by seconds, so its result depends on the machine. "
            "Use `iterations`, and an attack other than `auto`."
        )
    attack = attacks.make(wanted["name"], **settings)
    fields = {one.name for one in dataclasses.fields(attack)}  # type: ignore[arg-type]
    if "iterations" in fields:
        settings.setdefault("iterations", attack.iterations)  # type: ignore[attr-defined]
    elif searches and "seconds" in fields:
        # An exact search has no iterations; it is given up after its CPU seconds, and says that its answer is partial.
        settings.setdefault("seconds", attack.seconds)  # type: ignore[attr-defined]
    return {"name": wanted["name"], **settings}


def _defense(wanted: Any) -> dict[str, Any] | None:
    """A defense as a mapping, after its settings were tried."""
    if wanted is None:
        return None
    section = {"name": wanted} if isinstance(wanted, str) else dict(wanted)
    defenses.make(section["name"], **{name: value for name, value in section.items() if name != "name"})
    return section


def _check_guarded(section: Mapping[str, Any] | None) -> None:
    """Every attack on the guarded clients is there, plants a model, and has the settings it is given."""
    if section is None:
        return
    for one in adversaries(GuardedSection.model_validate(section).campaigns):
        if Requirement.CRAFTED_MODEL not in attacks.make(one.attack, **one.settings).requires:
            raise ConfigurationError(
                f"guarded.attacks names '{one.attack}', which reads what an honest server gets; a guard can only "
                "notice an attack that crafts the model."
            )


def _check_model(section: Mapping[str, Any]) -> None:
    if section["weights"] and not Path(section["weights"]).is_file():
        raise ConfigurationError(f"There is no weights file {section['weights']}; check model.weights.")
    if section["name"]:
        check_options(f"model '{section['name']}'", models.registry[section["name"]], dict(section["options"]))
    elif ":" not in section["factory"]:
        raise ConfigurationError(f"model.factory is '{section['factory']}'; write package.module:factory.")


def _check_data(name: str) -> None:
    """A registered set, or somebody's folder or archive that is really there."""
    if name in data.registry:
        return
    here = [Path(name).expanduser()] if len(Path(name).parts) > 1 or name.startswith((".", "~")) else []
    if not any(path.is_dir() for path in here) and not any(any(place.glob(f"{name}*")) for place in _folders(name)):
        data.registry[name]  # raises, with the nearest name


def _folders(name: str) -> list[Path]:
    return [place for place in places() if place.is_dir() and len(Path(name).parts) == 1]
