"""Does it matter whether the client computes in training or in inference mode?"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from invertigo.federation.dry_run import differs_in_dry_run
from invertigo.types import LocalTraining, Task, ThreatLevel


def sensitive_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that compute differently in training and in inference mode, by name.

    Norms that keep running statistics, and whatever drops values with a positive probability. Dropout called as
    a function (`F.dropout`) inside a `forward` leaves no trace in the modules; `mode_matters` of a task sees it.
    """
    return {name: module for name, module in model.named_modules() if _keeps_statistics(module) or _drops(module)}


def mode_matters(subject: nn.Module | Task) -> bool:
    """Something computes differently in training and in inference mode: BatchNorm, dropout.

    Of a task, what only its `forward` shows (`F.dropout(x, training=self.training)`) is seen too, by a dry run.
    """
    model = subject.model if isinstance(subject, Task) else subject
    if sensitive_layers(model) or not isinstance(subject, Task):
        return bool(sensitive_layers(model))
    return differs_in_dry_run(subject)


def shares_statistics(model: nn.Module) -> bool:
    """The model's buffers hold running statistics of the data (BatchNorm, tracking InstanceNorm)."""
    return any(_keeps_statistics(module) for module in model.modules())


def native_level(task: Task, local: LocalTraining) -> ThreatLevel:
    """The lowest rung of the ladder on which this client's own training puts an adversary who sees its update.

    `INFERENCE_MODE` when the client computes in inference mode and that changes something, or when it sends
    buffers that hold statistics of its batch; else `UPDATE`.
    """
    if local.mode == "eval" and mode_matters(task):
        return ThreatLevel.INFERENCE_MODE
    if local.shares_buffers and shares_statistics(task.model):
        return ThreatLevel.INFERENCE_MODE
    return ThreatLevel.UPDATE


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, _NormBase) and module.running_mean is not None


def _drops(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    rate = getattr(module, "dropout", 0.0)  # attention and recurrent layers hold their rate as a number
    return isinstance(rate, (int, float)) and rate > 0
