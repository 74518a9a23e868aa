"""A scenario: one client, one adversary, and the attacks to try, as a user writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from invertigo.auditing.budget import parse_budget
from invertigo.auditing.overrides import apply_overrides, explain, held_under, unknown_keys
from invertigo.auditing.packaged import packaged_names, read_mapping
from invertigo.types import (
    ConfigurationError,
    InvalidValueError,
    LocalTraining,
)

MOST_ROUNDS = 10_000
"""Epochs or rounds of any training in a scenario. No budget interrupts a training, so a slip must not last for days."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSection(_Section):
    """Which private examples the client trains on."""

    name: str = Field("faces", description="A data set from `invertigo list data`, or a folder of images.")
    split: str = "train"
    indices: list[int] | None = Field(None, description="The private examples; without it, `count` are drawn.")
    count: int = Field(4, ge=1, description="How many private examples are drawn when `indices` is not given.")
    pool: int | None = Field(
        None,
        ge=1,
        description="Keep so many drawn examples out of the public ones; audits of parts of it share a public.",
    )
    skip: int = Field(0, ge=0, description="How many drawn examples to pass over, so that audits take different ones.")
    size: int | None = Field(None, ge=1, description="Side in pixels to which images are resized.")
    limit: int | None = Field(None, ge=1, description="Read only the first so many examples of a large set.")
    nodes: tuple[int, int] | None = Field(None, description="Only graphs with at least and at most so many nodes.")
    grayscale: bool = Field(False, description="Turn colour images into one channel.")
    public_count: int = Field(500, ge=0, description="Other examples kept as public data, baselines and decoys.")

    @model_validator(mode="after")
    def _drawn_or_given(self) -> DataSection:
        if self.indices and (self.skip or self.pool):
            raise ValueError("`skip` and `pool` are about drawn examples; leave them out where `indices` names them")
        return self


class ModelSection(_Section):
    """The model that the client was sent."""

    name: str | None = Field(None, description="A model from `invertigo list models`.")
    factory: str | None = Field(None, description="Your own model: `module:factory`, called without arguments.")
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the model.")
    weights: str | None = Field(None, description="A safetensors file with the model's state dict.")
    trained_epochs: int = Field(
        0, ge=0, le=MOST_ROUNDS, description="Epochs of training on the public split before the audit."
    )

    @model_validator(mode="before")
    @classmethod
    def _one_origin(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        if given.get("name") and given.get("factory"):
            raise ValueError("a model has either a `name` or a `factory`, not both")
        return given if given.get("name") or given.get("factory") else {**given, "name": "lenet"}


class LocalSection(_Section):
    """How the client trains before it sends; the fields of `LocalTraining`."""

    mode: Literal["train", "eval"] = "train"
    sends: Literal["gradient", "difference"] = "gradient"
    learning_rate: float = 0.01
    momentum: float = 0.0
    epochs: int = Field(1, ge=1, le=MOST_ROUNDS)
    batch_size: int | None = None
    shares_buffers: bool = False

    def build(self) -> LocalTraining:
        """The client's recipe."""
        return LocalTraining(**self.model_dump())

    @model_validator(mode="after")
    def _meaningful(self) -> LocalSection:
        try:
            self.build()
        except InvalidValueError as error:
            raise ValueError(str(error)) from error
        return self


class AdversarySection(_Section):
    """Who looks at the update."""

    levels: list[int] | None = Field(None, description="Rungs of the threat ladder to examine; default: see below.")
    clients: int = Field(1, ge=1, description="Clients whose updates are summed before the adversary sees them.")
    releases: int = Field(1, ge=1, description="How often the adversary sees an update of the same batch and model.")
    knows: list[str] = Field(
        default_factory=list, description="Fields of the batch that are known from rung 2 on, e.g. adjacency of graphs."
    )

    @field_validator("levels")
    @classmethod
    def _on_the_ladder(cls, levels: list[int] | None) -> list[int] | None:
        wrong = [level for level in levels or [] if not 0 <= level <= 5]
        if wrong:
            raise ValueError(f"there is no rung {wrong[0]} on the threat ladder; its rungs are 0 to 5")
        return levels


class AttackSection(BaseModel):
    """An attack by name, with any of its hyper-parameters beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What stands beside the name."""
        return dict(self.model_extra or {})


class DefenseSection(BaseModel):
    """What the client does against reconstruction: a defense by name, with any of its settings beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """What stands beside the name."""
        return dict(self.model_extra or {})


class UtilitySection(_Section):
    """Federated training in which every update passes the defense, to see what it costs in accuracy."""

    rounds: int = Field(
        100, ge=1, le=MOST_ROUNDS, description="Rounds of training; every client sends one update in each."
    )
    clients: int = Field(4, ge=1, description="Clients that hold a part of the training examples each.")
    dirichlet: float | None = Field(
        None, gt=0, description="Skew of the classes over the clients (small: each has few classes); null: alike."
    )
    batch_size: int = Field(32, ge=1, description="Examples that a client draws for one update.")
    learning_rate: float = Field(0.1, gt=0, description="Of the server for gradients, of the clients for differences.")
    examples: int = Field(1000, ge=1, description="Training examples of all clients together, at most.")
    test: int = Field(500, ge=1, description="Test examples, at most a quarter of what there is.")
    undefended: bool = Field(True, description="Train without the defense too, for comparison.")


class CampaignSection(BaseModel):
    """An attack of a malicious server on guarded clients: a name, with any of the attack's settings beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    label: str = Field("", description="What the results call it; default: the attack's name and settings.")
    drift: float | None = Field(None, gt=0, le=1, description="Share of the way to the crafted model, more each visit.")
    visits: int = Field(1, ge=1, description="Rounds of the client that the attack goes on for, until it is noticed.")

    @property
    def settings(self) -> dict[str, Any]:
        """The attack's own."""
        return dict(self.model_extra or {})


class GuardedSection(_Section):
    """A federation whose clients inspect what they receive, under an honest server and under attacks."""

    clients: int = Field(10, ge=1, description="Clients that hold a part of the examples each.")
    rounds: int = Field(
        12, ge=1, le=MOST_ROUNDS, description="Rounds of federated averaging with the scenario's `local` training."
    )
    participation: float = Field(1.0, gt=0, le=1, description="Share of the clients that take part in a round.")
    dirichlet: float | None = Field(None, gt=0, description="Skew of the classes over the clients; null: alike.")
    examples: int = Field(2000, ge=10, description="Examples at most; a fifth of them are public.")
    probe: int = Field(64, ge=1, description="Own examples that a client inspects on, and that an attack is after.")
    attacks: list[str | CampaignSection] = Field(default_factory=list, description="Attacks of a malicious server.")
    at: list[Literal["first", "early", "middle", "last"]] = Field(
        default_factory=lambda: ["first", "early", "middle", "last"], description="Rounds that attacks begin in."
    )

    @property
    def campaigns(self) -> list[CampaignSection]:
        """The attacks, each with a label of its own."""
        return [CampaignSection.model_validate({"name": a}) if isinstance(a, str) else a for a in self.attacks]


class NormaliseSection(_Section):
    """Channel means and deviations that the model's input is normalised with."""

    mean: list[float]
    std: list[float]


class Scenario(_Section):
    """Everything an audit needs, in one file."""

    title: str = ""
    description: str = ""
    expect: str = Field("", description="What this scenario is known to find.")
    data: DataSection = Field(default_factory=lambda: DataSection.model_validate({}))
    model: ModelSection = Field(default_factory=lambda: ModelSection.model_validate({}))
    normalise: bool | NormaliseSection = Field(False, description="True: by the public examples' mean and deviation.")
    local: LocalSection = Field(default_factory=lambda: LocalSection.model_validate({}))
    adversary: AdversarySection = Field(default_factory=lambda: AdversarySection.model_validate({}))
    defense: str | DefenseSection | None = Field(None, description="A defense from `invertigo list defenses`.")
    utility: UtilitySection | None = Field(None, description="Measure what the defense costs in accuracy.")
    guarded: GuardedSection | None = Field(None, description="Measure what guards notice in a simulated federation.")
    attacks: Literal["auto"] | list[str | AttackSection] = "auto"
    budget: float | str = "60s"
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    seed: int = Field(0, ge=0)
    decoys: int = Field(100, ge=1)
    reader_epochs: int = Field(
        0,
        ge=0,
        le=MOST_ROUNDS,
        description="Train a classifier on clean images for so long and let it read what was rebuilt; 0: none.",
    )
    private: bool | None = Field(None, description="False lets a report show the originals; default: unless bundled.")
    compare: list[str | dict[str, Any]] = Field(
        default_factory=list, description="Scenarios shown beside this one: packaged names, files, or changes to it."
    )

    @field_validator("budget")
    @classmethod
    def _a_time(cls, budget: float | str) -> float | str:
        try:
            parse_budget(budget)
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return budget

    def resolved(self) -> dict[str, Any]:
        """Every key that has an effect with its value, defaults written out, as plain data."""
        unused = {"data": {"count"}} if self.data.indices is not None else None
        return self.model_dump(mode="json", exclude=unused)

    def attack_list(self) -> list[AttackSection] | None:
        """The attacks by name and hyper-parameters; None when the audit chooses."""
        if self.attacks == "auto":
            return None
        return [AttackSection(name=a) if isinstance(a, str) else a for a in self.attacks]

    @property
    def defended(self) -> DefenseSection | None:
        """The defense by name and settings; None where the client has none."""
        return DefenseSection(name=self.defense) if isinstance(self.defense, str) else self.defense

    def companions(self) -> list[Scenario]:
        """The scenarios to show beside this one, without those that they name in turn.

        A mapping holds changes to this one, by dotted or nested key.
        """
        named = [load_scenario(entry) if isinstance(entry, str) else self._changed(entry) for entry in self.compare]
        return [scenario.model_copy(update={"compare": []}) for scenario in named]

    def _changed(self, changes: dict[str, Any]) -> Scenario:
        return _validated(_merge(self.model_dump(exclude_unset=True) | {"compare": []}, changes), "compare")


def scenario_names() -> list[str]:
    """Names of the packaged scenarios."""
    return packaged_names(_packaged())


def load_scenario(source: str | Path, overrides: Sequence[str] = ()) -> Scenario:
    """A packaged scenario by name, or a YAML file, with `dotted.key=value` overrides laid over it.

    Raises: UnknownNameError for a name nobody has; ConfigurationError for a key or a value that cannot be understood.
    """
    mapping, what = read_mapping(source, "scenario", _packaged())
    return _validated(apply_overrides(mapping, overrides), what)


def _packaged() -> Traversable:
    return files("invertigo.auditing") / "scenarios"


def _validated(mapping: dict[str, Any], what: str) -> Scenario:
    typos = list(unknown_keys(Scenario, mapping))
    if typos:
        raise ConfigurationError(f"{what}: {' '.join(typos)}")
    try:
        return Scenario.model_validate(mapping)
    except ValidationError as error:
        raise ConfigurationError(explain(error, what)) from error


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        head, _, rest = key.partition(".")
        if rest:
            value = {rest: value}
        merged[head] = _merge(held_under(head, merged.get(head), value), value) if isinstance(value, dict) else value
    return merged
