"""What became of a simulated federation whose clients have a guard: every inspection, and every campaign."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class InspectionRecord(_Record):
    """One client's look at one model. `score` is -log10 of the smallest p-value; `rules` are those that spoke up."""

    round: int
    client: int
    decision: str
    score: float
    rules: list[str] = []
    isolated: float = 0.0
    """Share of the probe batch that is alone in a row, or between two rows, of a hidden layer."""
    loss: float = 0.0

    @property
    def flagged(self) -> bool:
        """Something was said before the update left."""
        return self.decision != "pass"


class AttackedRecord(InspectionRecord):
    """A look at a crafted model, in a campaign that began in round `started`."""

    started: int
    rebuilt: float | None = None
    """Share of the batch that the attack read back; None where that takes an optimiser, which was not run."""
    honest: float = 0.0
    """Share of the same batch that an honest server could have read."""
    behind: float | None = None
    """Share of the batch that makes up the update, where reading it back takes an optimiser."""
    honest_behind: float | None = None
    """The same of an honest update of this batch."""
    harmful: bool
    """More can be read than in an honest round."""

    @property
    def missed(self) -> bool:
        """The update left, and tells more than an honest round would."""
        return self.harmful and not self.flagged


class AdversaryRecord(_Record):
    """One attack against single clients of the federation, a campaign from each of several rounds on."""

    name: str
    attack: str
    settings: dict[str, object] = {}
    drift: float | None = None
    tuned: bool
    """Rules or constants of the guards were chosen with this attack in view."""
    inspections: list[AttackedRecord] = []
    skipped: str = ""
    """Why the attack cannot be planted in this model."""

    @property
    def campaigns(self) -> dict[tuple[int, int], list[AttackedRecord]]:
        """The rounds of each campaign, by the round it began in and its client."""
        found: dict[tuple[int, int], list[AttackedRecord]] = {}
        for one in self.inspections:
            found.setdefault((one.started, one.client), []).append(one)
        return found


class GuardRecord(_Record):
    """Honest inspections, and those of each adversary's models."""

    clients: int
    rounds: int
    participation: float
    dirichlet: float | None
    examples: int
    """Of all clients together; a fifth as many are public."""
    honest: list[InspectionRecord]
    adversaries: list[AdversaryRecord]
