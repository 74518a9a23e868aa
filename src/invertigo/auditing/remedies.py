"""What would change the verdict: the properties of this client that make it leak, each with its way out."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from invertigo.types import LocalTraining


def remedies(
    model: nn.Module, local: LocalTraining, num_examples: int | None, level: int | None, strongest: str | None
) -> Iterator[str]:
    """One sentence per property that contributed, the most effective first."""
    if strongest == "linear_layer" and _first_layer(model) is not None:
        yield (
            "The first layer is fully connected, so its gradient holds the inputs themselves: start with a "
            "convolution, or make the first layer narrower than the batch."
        )
    if strongest == "grain":
        yield (
            "Every message-passing layer is wider than the graph has nodes, so the row space of its gradient holds the "
            "nodes themselves: make the layers narrower than the graphs of a batch together, hide the gradient of the "
            "first layer, or add noise to it."
        )
    if level is not None and level >= 3 and local.mode == "train" and not local.shares_buffers:
        yield "Keep training in training mode and the BatchNorm buffers on the client: rung 3 is where this leaked."
    if local.mode == "eval" and _mode_dependent(model):
        yield "Train in training mode (model.train()): in inference mode every example is normalised by known numbers."
    if local.shares_buffers and _mode_dependent(model):
        yield "Keep the BatchNorm buffers on the client: they tell the batch statistics."
    if num_examples is not None and num_examples < 8:
        yield f"A batch of {num_examples} hides little: use larger batches and several local steps."
    yield "Secure aggregation over many clients, or clipping with noise (differential privacy), help below rung 5."


def _first_layer(model: nn.Module) -> nn.Linear | None:
    """The first module with weights, when it is fully connected."""
    first = next((m for m in model.modules() if any(True for _ in m.parameters(recurse=False))), None)
    return first if isinstance(first, nn.Linear) else None


def _mode_dependent(model: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
