"""A study as its author writes it: a base scenario, axes, seeds, presets and claims."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from invertigo.auditing.overrides import explain, unknown_keys
from invertigo.auditing.packaged import packaged_names, read_mapping
from invertigo.auditing.scenario import Scenario
from invertigo.studies.claims import Claim
from invertigo.studies.dotted import check_key, laid_over
from invertigo.types import ConfigurationError, UnknownNameError, did_you_mean

PresetName = Literal["smoke", "cpu", "paper"]
"""`smoke` takes a minute, `cpu` half an hour on two cores, `paper` is the published scale."""
Axis = list[Any]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Resources(_Section):
    """What one cell occupies; the same under every executor, so that results are the same too."""

    cpus: int = Field(1, ge=1, description="Cores, and threads of PyTorch.")
    gpus: float = Field(0, ge=0, description="Share of a GPU that Ray reserves; pair it with base.device: cuda.")


class Preset(_Section):
    """A scale of the study: what it changes."""

    description: str = ""
    base: dict[str, Any] = Field(default_factory=dict, description="Laid over the base, by dotted or nested key.")
    axes: dict[str, Axis | None] = Field(default_factory=dict, description="Axes in place of those; null drops one.")
    zip: list[list[str]] | None = None
    exclude: list[dict[str, Any]] | None = None
    seeds: list[int] | None = None
    examples: int | None = Field(None, ge=1)


class Study(_Section):
    """A grid of audits and the claims it checks."""

    name: str = Field(pattern=r"^\w[\w.-]*$", max_length=100, description="Short name, as a folder may be called.")
    title: str = ""
    description: str = ""
    paper: str = Field("", description="BibTeX key or reference of the paper that is reproduced.")
    base: dict[str, Any] = Field(default_factory=dict, description="A scenario; every cell starts from it.")
    axes: dict[str, Axis] = Field(
        default_factory=dict,
        description="Dotted scenario key to its values; or any name to a list of {label, set: {dotted key: value}}.",
    )
    zip: list[list[str]] = Field(default_factory=list, description="Axes of equal length that move together.")
    exclude: list[dict[str, Any]] = Field(
        default_factory=list, description="Combinations left out: axis to a label or a list of labels."
    )
    seeds: list[int] = Field(default_factory=lambda: [0], min_length=1)
    examples: int | None = Field(
        None,
        ge=1,
        description="Private examples for each point and seed, audited data.count at a time; default: one batch.",
    )
    resources: Resources = Field(default_factory=lambda: Resources.model_validate({}))
    presets: dict[PresetName, Preset] = Field(default_factory=dict)
    claims: list[Claim] = Field(default_factory=list)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("seeds must be distinct and not negative")
        return seeds

    def at(self, preset: str | None) -> Study:
        """The study at the scale of `preset`; None is the study as written. Raises: UnknownNameError."""
        if preset is None:
            return self
        if preset not in self.presets:
            raise UnknownNameError(
                f"Study '{self.name}' has no preset '{preset}'.{did_you_mean(preset, self.presets)} "
                f"It has {', '.join(self.presets) or 'none'}."
            )
        changes = self.presets[preset]
        axes = {**self.axes, **changes.axes}
        whole = {
            "base": laid_over(self.base, changes.base),
            "axes": {name: values for name, values in axes.items() if values is not None},
            "zip": self.zip if changes.zip is None else changes.zip,
            "exclude": self.exclude if changes.exclude is None else changes.exclude,
            "seeds": changes.seeds or self.seeds,
            "examples": changes.examples or self.examples,
        }
        return self.model_copy(update=whole)


def study_names() -> list[str]:
    """Names of the packaged studies."""
    return packaged_names(_packaged())


def load_study(source: str | Path) -> Study:
    """A packaged study by name, or a YAML file.

    Raises: UnknownNameError for a name nobody has; ConfigurationError for a key or value that cannot be understood.
    """
    return parse_study(*read_mapping(source, "study", _packaged()))


def parse_study(mapping: Mapping[str, Any], what: str = "The study") -> Study:
    """A study from plain data, every key checked. Raises: ConfigurationError with the nearest right key."""
    typos = list(unknown_keys(Study, mapping))
    for name, preset in _mappings(mapping.get("presets")):
        typos += unknown_keys(Preset, preset, f"presets.{name}.")
    bases = [("base.", mapping.get("base"))]
    bases += [(f"presets.{name}.base.", preset.get("base")) for name, preset in _mappings(mapping.get("presets"))]
    for prefix, base in bases:
        typos += _unknown_scenario_keys(base, prefix)
    if typos:
        raise ConfigurationError(f"{what}: {' '.join(typos)}")
    try:
        return Study.model_validate(mapping)
    except ValidationError as error:
        raise ConfigurationError(explain(error, what)) from error


def _unknown_scenario_keys(base: Any, prefix: str) -> list[str]:
    if not isinstance(base, Mapping):
        return []
    dotted = [str(key) for key in base if "." in str(key)]
    for key in dotted:
        check_key(Scenario, key, prefix)
    return list(unknown_keys(Scenario, {k: v for k, v in base.items() if k not in dotted}, prefix))


def _mappings(given: Any) -> list[tuple[str, Mapping[str, Any]]]:
    entries = given.items() if isinstance(given, Mapping) else ()
    return [(name, entry) for name, entry in entries if isinstance(entry, Mapping)]


def _packaged() -> Traversable:
    return files("invertigo.studies") / "papers"
