"""What the adversary holds. There is no field for the private batch: truth cannot reach an attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from invertigo.types.batch import Batch
from invertigo.types.domain import Domain
from invertigo.types.errors import CorruptFileError, InvalidValueError, MismatchError
from invertigo.types.handed_over import as_tensors, gradients_by_name, with_state
from invertigo.types.plant import Plant
from invertigo.types.task import StepLoss, Task
from invertigo.types.threat import ThreatLevel
from invertigo.types.training import LocalTraining
from invertigo.types.untrusted import check_file
from invertigo.types.update import Update, check_fits, rounding, widened
from invertigo.types.view import AdversaryView
from invertigo.types.wrappers import bare


class Requirement(Enum):
    """What an attack may need to know or to do; the value completes the sentence "the adversary must ..."."""

    BATCH_SIZE = "know how many examples the update was computed on"
    LABELS = "know the labels of the batch"
    BATCH_STATISTICS = "know the BatchNorm statistics of the batch"
    SINGLE_GRADIENT = "see one gradient rather than the sum of several local steps"
    PUBLIC_DATA = "hold public data of the same kind"
    NODE_COUNTS = "know how many nodes each graph has"
    CRAFTED_MODEL = "have crafted the model that the client trained"


@dataclass(frozen=True)
class Knowledge:
    """What the adversary knows beside the model, the client's training recipe and the update.

    `batch_statistics[module]` is the (mean, biased variance) of the batch at the input of that BatchNorm module.
    `fields` are other parts of the private batch that the adversary knows, by name: of graphs, which places hold a
    node (`present`), or the edges (`adjacency`).
    `view` is how an adversary who knows the client's defense reads the update; without it, the attack is naive.
    `plant` is what a malicious server planted in the model before the client trained it.
    """

    level: ThreatLevel = ThreatLevel.UPDATE
    num_examples: int | None = None
    labels: Tensor | None = None
    batch_statistics: Mapping[str, tuple[Tensor, Tensor]] | None = None
    public: Batch | None = None
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    view: AdversaryView | None = None
    plant: Plant | None = None

    def __post_init__(self) -> None:
        if self.num_examples is not None and self.num_examples < 1:
            raise InvalidValueError(f"num_examples is {self.num_examples}; an update comes from at least one example.")
        if self.labels is not None and self.num_examples not in (None, len(self.labels)):
            raise MismatchError(f"{len(self.labels)} labels were given for {self.num_examples} examples.")


@dataclass(frozen=True)
class Observation:
    """One update as the adversary received it, with all that the adversary knows.

    `parameters` and `buffers` are those of the model the client was sent, by name. `releases` are all updates that this
    client sent for the same batch and model, in order, when there was more than one or `update` is made from them.
    """

    task: Task
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    update: Update
    local: LocalTraining = field(default_factory=LocalTraining)
    knowledge: Knowledge = field(default_factory=Knowledge)
    releases: tuple[Update, ...] = ()

    def __post_init__(self) -> None:
        check_fits(self.update.tensors, self.parameters)
        self._widen()
        if self.update.kind != self.local.sends:
            raise MismatchError(
                f"The update is a {self.update.kind}, but the client is said to send a {self.local.sends}; "
                "set LocalTraining.sends to what crosses the wire."
            )
        labels, classes = self.knowledge.labels, self.task.num_classes
        if labels is not None and classes and not labels.is_floating_point():
            # One label a node: -1 stands where a graph has no more nodes.
            outside = labels[(labels < (0 if labels.ndim < 2 else -1)) | (labels >= classes)]
            if any(not self.task.ignores(int(label)) for label in outside.unique()):
                raise InvalidValueError(
                    f"Label {outside[0].item()} is outside the model's {classes} classes (0..{classes - 1})."
                )

    def _widen(self) -> None:
        """Half precision is kept in float32, value by value: attacks need the room, and can see what it was."""
        for name in ("parameters", "buffers"):
            object.__setattr__(self, name, {k: widened(t) for k, t in getattr(self, name).items()})
        tensors = {k: t.to(self.parameters[k]) for k, t in self.update.tensors.items()}
        object.__setattr__(self, "update", replace(self.update, tensors=tensors))

    def unmet(self, requirements: frozenset[Requirement]) -> list[Requirement]:
        """The requirements that this observation does not meet."""
        known = self.knowledge
        met = {
            Requirement.BATCH_SIZE: known.num_examples is not None or known.labels is not None,
            Requirement.LABELS: known.labels is not None,
            Requirement.BATCH_STATISTICS: known.batch_statistics is not None,
            Requirement.SINGLE_GRADIENT: self.local.sends == "gradient",
            Requirement.PUBLIC_DATA: known.public is not None,
            Requirement.NODE_COUNTS: "present" in known.fields,
            Requirement.CRAFTED_MODEL: known.plant is not None,
        }
        return sorted((r for r in requirements if not met[r]), key=lambda r: r.name)

    @property
    def num_examples(self) -> int | None:
        """Size of the batch, when the adversary knows it."""
        labels = self.knowledge.labels
        return len(labels) if labels is not None else self.knowledge.num_examples

    def informed(self, view: AdversaryView) -> Observation:
        """The same observation in the hands of an adversary who knows the defense."""
        return replace(
            self,
            task=view.task or self.task,
            update=view.update or self.update,
            knowledge=replace(self.knowledge, view=view),
            releases=self.releases or (() if view.update is None else (self.update,)),
        )

    def naive(self) -> Observation:
        """The same observation as who does not know the defense reads it: the first release, as it was received."""
        received = self.releases[0] if self.releases else self.update
        return replace(self, update=received, knowledge=replace(self.knowledge, view=None))

    @classmethod
    def from_gradients(
        cls,
        model: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        gradients: Mapping[str, Any] | Sequence[Any],
        *,
        domain: Domain,
        mode: str = "train",
        num_classes: int | None = None,
        knowledge: Knowledge | None = None,
        step: StepLoss | None = None,
    ) -> Observation:
        """An observation of one gradient: by parameter name, or in the order of the model's trainable parameters.

        Tensors or NumPy arrays; None stands for zeros, and so does the missing name of a parameter that the model does
        not use. Names may carry the prefixes of wrappers (`module.`, `_orig_mod.`, `_module.`).

        Raises: MismatchError when names or shapes do not fit the model; InvalidValueError on NaN or Inf.
        """
        task = Task(model, loss_fn, domain, num_classes, step)
        parameters = trainable(task.model)
        update = Update(gradients_by_name(gradients, parameters, task.model, domain), "gradient")
        local = LocalTraining(mode=mode)  # type: ignore[arg-type]
        return cls(task, parameters, buffers_of(task.model), update, local, knowledge or Knowledge())

    @classmethod
    def from_parameters(
        cls,
        model: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        before: Mapping[str, Any],
        after: Mapping[str, Any],
        *,
        domain: Domain,
        learning_rate: float | None = None,
        steps: int = 1,
        num_examples: int | None = None,
        momentum: float = 0.0,
        mode: str = "train",
        num_classes: int | None = None,
        knowledge: Knowledge | None = None,
        step: StepLoss | None = None,
        shares_buffers: bool = True,
        local: LocalTraining | None = None,
    ) -> Observation:
        """An observation from two state dicts: the model sent to the client and the one that came back.

        `steps` local SGD steps of equal batch size were taken in between, in one pass over `num_examples` examples.
        One step without momentum is read as the gradient `(before - after) / learning_rate`.
        Any other training is told by `local`, with `sends="difference"`, which stands in place of these arguments.
        Non-trainable entries (BatchNorm buffers) are kept as the client's shared buffers. What `before` holds of frozen
        parameters stands in the task's model, a copy of `model`. Tensors or NumPy arrays.

        Raises: MismatchError when the state dicts do not fit the model or each other, or are equal.
        """
        model = bare(model)
        names, moving = trainable(model), buffers_of(model)
        before, after = (as_tensors(state, dict(model.state_dict())) for state in (before, after))
        for label, state in (("before", before), ("after", after)):
            check_fits({k: v for k, v in state.items() if k in names}, names, f"state dict '{label}'")
        task = Task(with_state(model, before), loss_fn, domain, num_classes, step)
        parameters = {name: before[name] for name in names}
        difference = {name: after[name] - parameters[name] for name in names}
        if all(not d.any() for d in difference.values()):
            raise MismatchError(
                "The parameters before and after are identical, so the update is empty: "
                "these may be the same file, or the client did not train."
            )
        knowledge = knowledge or Knowledge(num_examples=num_examples)
        buffers = {k: v for k, v in before.items() if k in moving}
        shared = {k: v for k, v in after.items() if k in moving} if shares_buffers else None
        count = knowledge.num_examples if knowledge.labels is None else len(knowledge.labels)
        local = replace(local or _plain_steps(learning_rate, steps, momentum, mode, count), shares_buffers=bool(shared))
        if local.sends == "gradient":
            difference = {k: -d / local.learning_rate for k, d in difference.items()}
        lost = _lost(parameters, difference, local)
        update = Update(difference, local.sends, shared or None, lost)
        return cls(task, parameters, {**moving, **buffers}, update, local, knowledge)

    @classmethod
    def load(
        cls,
        path: str | Path,
        model: nn.Module,
        loss_fn: Callable[[Tensor, Tensor], Tensor],
        *,
        domain: Domain,
        mode: str = "train",
        num_classes: int | None = None,
        knowledge: Knowledge | None = None,
        step: StepLoss | None = None,
    ) -> Observation:
        """An observation of one gradient stored as safetensors (never a pickle), by parameter name.

        Raises: CorruptFileError when the file is missing or is no safetensors file.
        """
        gradients = read_tensors(path)
        return cls.from_gradients(
            model, loss_fn, gradients, domain=domain, mode=mode, num_classes=num_classes, knowledge=knowledge,
            step=step,
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Write the update's tensors as safetensors."""
        save_file({name: tensor.contiguous() for name, tensor in self.update.tensors.items()}, str(path))


def read_tensors(path: str | Path, *, holding: str = "update") -> dict[str, Tensor]:
    """Named tensors of a safetensors file, which is `holding` an update or a model. Raises: CorruptFileError."""
    if not Path(path).exists():
        raise CorruptFileError(f"There is no file {path}; pass the safetensors file that holds the {holding}.")
    try:
        return load_file(str(check_file(path)))
    # A header may name types, shapes and offsets that neither safetensors nor PyTorch can make anything of.
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise CorruptFileError(
            f"{path} cannot be read as safetensors ({error}). Only safetensors are read, because a "
            f"pickle can run code; write one with safetensors.torch.save_file({holding}, path)."
        ) from error


def _plain_steps(
    learning_rate: float | None, steps: int, momentum: float, mode: str, count: int | None
) -> LocalTraining:
    """Plain SGD over equal batches; one step is read as a gradient."""
    if learning_rate is None or learning_rate <= 0 or steps < 1:
        raise InvalidValueError(f"learning_rate={learning_rate} and steps={steps} must both be positive.")
    recipe: dict[str, Any] = {"mode": mode, "learning_rate": learning_rate}
    if steps == 1:
        return LocalTraining(**recipe)
    if count is None or count % steps:
        raise InvalidValueError(
            f"{steps} local steps need num_examples, a multiple of {steps}; it is {count}. Steps "
            f"over the same batch again are epochs: local=LocalTraining(sends='difference', epochs={steps}, ...)."
        )
    return LocalTraining(**recipe, sends="difference", momentum=momentum, batch_size=count // steps)


def _lost(parameters: Mapping[str, Tensor], update: Mapping[str, Tensor], local: LocalTraining) -> float:
    """Relative error of an update read off parameters: they keep so many digits, of which the update is the last."""
    held = sum((rounding(p) / 2 * p.double().norm().item()) ** 2 for p in parameters.values()) ** 0.5
    size = sum(t.double().norm().item() ** 2 for t in update.values()) ** 0.5
    return held / (size * (local.learning_rate if local.sends == "gradient" else 1.0))


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Detached copies of the model's trainable parameters, by name, in the model's order."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """Detached copies of the model's buffers, by name."""
    return {name: b.detach().clone() for name, b in model.named_buffers()}
