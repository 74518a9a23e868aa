"""The written result of an audit: `result.json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from invertigo.auditing.guard_record import GuardRecord

Outcome = Literal["exact", "recognisable", "nothing"]
"""What became of one private example: rebuilt to rounding, rebuilt so that a person knows it, or not."""


CONTROLS = ("replay", "schedule", "positive", "fit")
"""What must have passed before "nothing was rebuilt" may be called *resists*."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class MetricRecord(_Record):
    """A score the domain reports; the first one of an audit is its headline."""

    name: str
    label: str
    privacy_loss: bool
    unit: str = ""
    description: str = ""


class AttackRecord(_Record):
    """One attack on one rung of the ladder; lists over examples are in the order of the truth."""

    level: int
    attack: str
    paper: str
    exact: bool
    informed: bool = False
    """The adversary knew the client's defense and its settings."""
    status: Literal["ran", "refused", "failed", "skipped"]
    reason: str = ""
    seconds: float = 0.0
    stopped: str = ""
    iterations: int | None = None
    """Iterations that were carried out, where the attack says so."""
    planned_iterations: int | None = None
    """Iterations of the attack's full default schedule."""
    seconds_needed: float | None = None
    """Time that its full default schedule would take here, by the pace that was measured; None where unknown."""
    objective: float | None = None
    trace: list[tuple[int, float]] = []
    labels: Literal["given", "inferred", "unused"] = "unused"
    label_accuracy: float | None = None
    scores: dict[str, list[float]] = {}
    matching: list[int] = []
    ranks: list[int] = []
    decoys: int = 0
    outcomes: list[Outcome] = []
    doubtful: list[int] = []
    """Examples whose picture would be called recognisable, but scores no better than a guess that reads nothing."""
    notes: list[str] = []
    residual: float | None = None
    """Relative distance of the update that this reconstruction would have caused from the observed one."""
    residual_up_to_scale: float | None = None
    """The same distance after the best factor, of the reconstruction brought into the range of the data."""
    tensors: str = ""
    """Prefix of this reconstruction's tensors in `reconstruction.safetensors` (`<prefix>/images`, ...)."""

    @property
    def recovered(self) -> int:
        """How many private examples were rebuilt exactly or recognisably."""
        return sum(outcome != "nothing" for outcome in self.outcomes)

    @property
    def identified(self) -> int:
        """How many an observer would pick out among the decoys."""
        return sum(rank == 1 for rank in self.ranks)


def count_recovered(attacks: Sequence[AttackRecord]) -> int:
    """How many private examples were rebuilt by any of these attacks, each with whichever did."""
    return sum(
        any(outcome != "nothing" for outcome in one) for one in zip(*(a.outcomes for a in attacks if a.outcomes))
    )


class BaselineRecord(_Record):
    """Scores of a guess that reads nothing from the update. `level` is set when the guess belongs to one rung only."""

    name: str
    label: str
    scores: dict[str, list[float]]


class DefenseRecord(_Record):
    """A defense in an audit: what it did to the releases, measured, and what an adversary knows of it.

    Means are over the releases on the lowest rung; they are None for an update that was handed over.
    """

    name: str
    paper: str
    settings: dict[str, Any]
    releases: int
    undefended: int | None = None
    """Releases that equal the raw update."""
    cosine: float | None = None
    """Between the release and what the same steps would have sent without the defense."""
    changed: float | None = None
    """Share of entries that differ from the raw update."""
    visible: float | None = None
    """Share of entries that are not zero."""
    norm_ratio: float | None = None
    bytes: float | None = None
    raw_bytes: float | None = None
    facts: dict[str, float] = {}
    """What the defense reports itself: means, and the largest for a privacy loss (`epsilon`, `delta`)."""
    replaces_task: bool = False
    """It changes the model that is trained, so that a release may equal the raw update of that model."""
    knows: str = ""
    """What the informed adversary knows, and how that is used."""
    uninformed: str = ""
    """Why no attack was run with that knowledge; empty when some were."""

    @property
    def inert(self) -> bool:
        """No release differs from the raw update, and the model is the old one."""
        return bool(self.releases) and self.undefended == self.releases and not self.replaces_task


class UtilityRecord(_Record):
    """Federated training with every update defended: accuracy of the model on test examples, in [0, 1]."""

    rounds: int
    clients: int
    dirichlet: float | None
    batch_size: int
    learning_rate: float
    examples: int
    test: int
    accuracy: float
    curve: list[tuple[int, float]]
    """(round, accuracy), a few rounds."""
    diverged: bool = False
    """The loss became infinite, after which nothing was learned."""
    chance: float = 0.0
    """Accuracy of always naming the commonest class of the test examples."""
    undefended_accuracy: float | None = None
    """The same training without the defense; None where it was not measured."""
    undefended_curve: list[tuple[int, float]] = []
    undefended_share: float = 0.0
    """Share of all releases that equal the raw update."""
    seconds: float
    """Processor time of the clients with the defense."""
    undefended_seconds: float | None = None
    bytes: float
    """Of one release, on average."""
    raw_bytes: float
    facts: dict[str, float] = {}


class LevelRecord(_Record):
    """One rung of the ladder: the strongest attack found there or below."""

    level: int
    summary: str
    examined: bool
    reason: str = ""
    """Why it was not examined, or what was assumed when it was."""
    strongest: str | None = None
    strongest_level: int | None = None
    strongest_informed: bool = False
    """The strongest attack knew the client's defense."""
    recovered: int = 0
    recovered_interval: tuple[float, float] | None = None
    """95 % Wilson interval of the recovered share of such examples, in [0, 1]."""
    identified: int = 0
    defense: str | None = None
    """The cheapest defense known to stop it, with its cost; None when none was examined."""


class FlagRecord(_Record):
    """A sanity flag: something a reader must know before believing a number."""

    code: str
    severity: Literal["info", "warning", "fatal"]
    message: str
    remedy: str = ""


class VerdictRecord(_Record):
    """The answer. `level` is the lowest rung on which private examples were rebuilt."""

    status: Literal["leaks", "resists", "inconclusive"]
    headline: str
    detail: str
    level: int | None = None
    remedy: str = ""
    """What would change the verdict."""
    missing: list[str] = []
    """What keeps an inconclusive verdict open, a sentence each."""
    needs_seconds: float | None = None
    """Budget that would let every attack finish, by the pace that was measured; None where that is not what lacks."""


class ControlRecord(_Record):
    """Whether the instrument worked: one control of the audit, with what was measured."""

    name: Literal["replay", "schedule", "positive", "fit"]
    status: Literal["passed", "failed", "unknown", "not_applicable"]
    summary: str
    """One plain sentence."""
    facts: dict[str, float | str | None] = {}


class AuditRecord(_Record):
    """Everything an audit found, without any tensor; `report`, `check` and `table` read it back."""

    schema_version: Literal[1] = 1
    title: str
    created: str
    """ISO 8601, UTC."""
    version: str
    command: str
    """A command or a call that repeats this audit."""
    seed: int
    seconds: float
    budget_seconds: float
    scenario: dict[str, Any]
    domain: dict[str, Any]
    """`name` and the arguments that rebuild the domain."""
    num_examples: int
    knowledge: list[str]
    """What the adversary was assumed to know, a sentence each."""
    metrics: list[MetricRecord]
    attacks: list[AttackRecord]
    baselines: list[BaselineRecord]
    defense: DefenseRecord | None = None
    utility: UtilityRecord | None = None
    guard: GuardRecord | None = None
    levels: list[LevelRecord]
    flags: list[FlagRecord]
    controls: list[ControlRecord] = []
    """Whether the instrument worked; none in results written before controls were kept."""
    portfolio: Literal["automatic", "chosen"] = "automatic"
    """The attacks and rungs contain those that an audit chooses by itself, or somebody chose fewer."""
    verdict: VerdictRecord
    citations: dict[str, str]
    """BibTeX key to entry, for exactly what was used."""
    environment: dict[str, str]
    private: bool = True
    """False for bundled public data, whose originals a report may show."""

    @property
    def ran(self) -> Sequence[AttackRecord]:
        """The attacks that ran to a reconstruction."""
        return [attack for attack in self.attacks if attack.status == "ran"]

    @property
    def uncontrolled(self) -> list[str]:
        """The controls that did not pass or were not made; any of them takes the ground from under *resists*."""
        passed = {control.name for control in self.controls if control.status == "passed"}
        return [name for name in CONTROLS if name not in passed]

    @property
    def worst(self) -> AttackRecord | None:
        """The attack that rebuilt most: by examples recovered, then by the headline metric's best example."""
        headline = self.metrics[0]
        scored = [attack for attack in self.ran if attack.scores.get(headline.name)]
        if not scored:
            return None
        sign = 1 if headline.privacy_loss else -1
        return max(scored, key=lambda a: (a.recovered, max(sign * s for s in a.scores[headline.name])))
