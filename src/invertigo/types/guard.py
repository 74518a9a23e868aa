"""The contract of a guard: what a client sees of a server, what it notes down, and what it makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from invertigo.types.batch import Batch
from invertigo.types.errors import InvalidValueError
from invertigo.types.paper import Paper
from invertigo.types.printable import printable
from invertigo.types.task import Task
from invertigo.types.training import LocalTraining
from invertigo.types.update import Update

if TYPE_CHECKING:
    from invertigo.types.history import History

Gate = Literal["load", "train", "send"]
Kind = Literal["malice", "leak", "defect", "divergence"]
Decision = Literal["pass", "warn", "block"]
Look = Literal["zero_head", "lora", "pruned", "tied", "dirac", "quantised"]


@dataclass(frozen=True)
class Received:
    """What the server sent: parameters and buffers by name, not yet loaded into any model."""

    tensors: Mapping[str, Tensor]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and bytes; the same for every client of a server that broadcasts."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name].detach().cpu().contiguous()
            digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            # Through a copy of one dimension at least, which every dtype and shape can be viewed as bytes of.
            if tensor.numel():
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What the federation told its clients beforehand. Each declaration makes a test possible, or keeps one quiet.

    `initial` draws a model as the first one is said to have been drawn; the first model received is tested against it.
    `fingerprint` is the hash of this round's model as published elsewhere or as other clients received it. `looks` are
    honest reasons for weights that resemble a crafted model: pruned, tied, Dirac-initialised, quantised, with a
    zero-initialised head, or with LoRA.
    """

    initial: Callable[[torch.Generator], nn.Module] | None = None
    fingerprint: str | None = None
    looks: frozenset[Look] = frozenset()


@dataclass(frozen=True, eq=False)
class LayerSignals:
    """One linear or convolutional layer on the probe batch, in float32 or wider.

    `inputs` and `slopes` have the batch first: what the layer read, and the derivative of each example's own loss by
    its output. The layer's gradient is the sum over examples of their products.
    """

    module: nn.Module
    inputs: Tensor
    slopes: Tensor


@dataclass(frozen=True, eq=False)
class UseSignals:
    """A parameter where it met the batch, found by what the forward pass did rather than by a layer's class.

    `slopes` (unit, row) are derivatives of each example's loss by the output of each row, `inputs` (unit, feature) what
    the rows read; the gradient's row k is the sum over units of slope times input. A unit is an example, a token of
    one, or a patch; `owner` (unit,) says whose, `coverage` what part of an example. `gates` (unit, row) says which
    outputs are positive. `entries` (row, feature) are places in the flat parameter, None where rows are those of its
    first axis; `bias_entries` (row,) those in `bias`. `inputs` are None where only the slopes are known.
    """

    parameter: str
    how: str
    slopes: Tensor
    coverage: float
    owner: Tensor
    inputs: Tensor | None = None
    gates: Tensor | None = None
    parameter_size: int = 0
    entries: Tensor | None = None
    bias: str | None = None
    bias_entries: Tensor | None = None


@dataclass(frozen=True)
class Signals:
    """What one forward and backward pass of the probe batch through the received model shows, without any step.

    `losses` (example) are None where the task's loss cannot be taken of one example; `loss` is their mean. `refusal`
    says why the pass could not be made. `uses` are all the places where parameters met the batch;
    `unseen[name]` says of which parameters that could not be told, and why.
    """

    loss: float
    losses: Tensor | None
    layers: Mapping[str, LayerSignals]
    refusal: str | None = None
    uses: tuple[UseSignals, ...] = ()
    unseen: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Local:
    """What the client holds: its task (the model is read for its architecture only) and, as far as they exist yet,
    a probe batch of its own, how it trains, the update that is about to leave, and `signals` of the probe batch.
    """

    task: Task
    batch: Batch | None = None
    training: LocalTraining = field(default_factory=LocalTraining)
    update: Update | None = None
    round: int = 0
    declared: Declared = field(default_factory=Declared)
    signals: Signals | None = None
    whole: Batch | None = None
    """All examples of the client's at hand, where `batch` are those examined: honest reference models train on them."""


@dataclass(frozen=True)
class Finding:
    """One test of one guard. `p_value` is the probability of such a `statistic` under an honest server.

    `p_value` is None where nothing random is tested: a published rule without a null law, or a leak. `alarming` is what
    a guard says of such a finding; with a p-value, the inspector's budget decides. `rows` are of `layer`; `examples`
    are positions in the client's batch that can be read off the update, of `of` examined. `level` is what an alarm
    without a p-value comes to, `figure` the name of the statistic in the history (by default the rule's). `drop` are
    places in the update's flat tensors; without them the leak is closed.
    """

    rule: str
    gate: Gate
    kind: Kind
    statistic: float
    p_value: float | None
    message: str
    action: str
    layer: str | None = None
    rows: tuple[int, ...] = ()
    examples: tuple[int, ...] = ()
    of: int = 0
    alarming: bool = False
    level: Decision = "warn"
    figure: str = ""
    drop: Mapping[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", printable(self.message))
        if self.p_value is not None and not 0 <= self.p_value <= 1:
            raise InvalidValueError(f"Finding of '{self.rule}': p_value={self.p_value} is no probability.")


@dataclass(frozen=True)
class GuardVerdict:
    """What the inspector made of one gate or of a whole round, with its evidence.

    `findings` are those that count, the worst first; `observed` is everything that was measured. `figures` go into the
    history. `skipped[rule]` says why a guard could not look.
    """

    decision: Decision
    findings: tuple[Finding, ...] = ()
    observed: tuple[Finding, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    round: int = 0
    fingerprint: str = ""
    seconds: float = 0.0

    @property
    def malicious(self) -> bool:
        """Something was found that an honest server would not send."""
        return any(f.kind == "malice" for f in self.findings)

    @property
    def leaking(self) -> bool:
        """More of the batch than is tolerated can be read off the update, whoever the server is."""
        return any(f.kind == "leak" for f in self.findings)

    @property
    def recoverable(self) -> tuple[int, ...]:
        """Positions of examples that can be read off the update."""
        return tuple(sorted({i for f in self.observed for i in f.examples}))

    @property
    def drop(self) -> dict[str, Tensor]:
        """Places in the update's flat tensors that show more than an honest round would."""
        places: dict[str, list[Tensor]] = {}
        for finding in self.observed:
            for name, found in finding.drop.items():
                places.setdefault(name, []).append(found.cpu())
        return {name: torch.cat(found).unique() for name, found in places.items()}

    def repaired(self, update: Update) -> Update:
        """The update with zeros where it would show more of single examples than an honest round does."""
        tensors = dict(update.tensors)
        for name, places in self.drop.items():
            if name in tensors:
                flat = tensors[name].clone().reshape(-1)
                flat[places.to(flat.device)] = 0
                tensors[name] = flat.reshape(tensors[name].shape)
        return replace(update, tensors=tensors)

    def summary(self) -> str:
        """One line: the decision and its strongest reason."""
        if not self.findings:
            return f"{self.decision.upper()}  nothing improbable in {len(self.observed)} tests"
        worst = self.findings[0]
        return f"{self.decision.upper()}  {worst.kind}: {worst.message}"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the tests that came to nothing, ready for JSON."""
        return {
            "decision": self.decision,
            "round": self.round,
            "malicious": self.malicious,
            "leaking": self.leaking,
            "recoverable": list(self.recoverable),
            "findings": [_plain(f) for f in self.findings],
            "repair": {name: len(places) for name, places in self.drop.items()},
            "figures": dict(self.figures),
            "skipped": dict(self.skipped),
            "tests": len(self.observed),
            "fingerprint": self.fingerprint,
            "seconds": round(self.seconds, 4),
        }


def _plain(finding: Finding) -> dict[str, Any]:
    """As JSON holds it; of the places to drop, their number."""
    told = asdict(replace(finding, drop={}))
    return {**told, "drop": {name: len(places) for name, places in finding.drop.items()}}


@runtime_checkable
class Guard(Protocol):
    """A frozen dataclass of settings that looks at one thing. Stateless; it writes to nothing it is given.

    `needs` says what must be there: `probe` (a batch), `update`, `history` (at least one clean round), `initial` (a
    declared initialisation, and the first model). A guard whose needs are not met is skipped, with the reason.
    """

    name: ClassVar[str]
    paper: ClassVar[Paper]
    gate: ClassVar[Gate]
    needs: ClassVar[frozenset[str]]

    def inspect(self, received: Received, history: History, local: Local) -> tuple[Finding, ...]:
        """Every test that was made, significant or not; p-values hold for the whole finding, all its rows included."""
        ...
