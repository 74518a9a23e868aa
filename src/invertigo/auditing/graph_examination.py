"""What a `doctor` says of a graph network: which layers show nodes, what counts them, and what bounds an attack."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from invertigo.auditing.diagnosis import Diagnosis, Finding
from invertigo.auditing.probing import NOT_PROBED, probe
from invertigo.auditing.structure import mode_findings, parameter_findings
from invertigo.domains import Graphs
from invertigo.models import GraphNetwork, graph_step
from invertigo.models.graph_layers import GraphConvolution
from invertigo.types import (
    InvalidValueError,
    LocalTraining,
    Observation,
    Task,
)

NODES = 8
"""Nodes of the graph, a path, on which one gradient is computed."""
WIDER = "a layer narrower than the graphs' kinds of nodes ends this; so does noise (see the page on graphs)."


def examine_graphs(
    model: GraphNetwork,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    batch_size: int,
    shape: tuple[int, ...],
    local: LocalTraining,
    classes: int | None,
) -> Diagnosis:
    """Findings on a graph network that reads graphs of `shape` (node, column).

    Raises: InvalidValueError when the model cannot read them.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise InvalidValueError(
            f"input_shape is {shape}; a graph network reads (nodes, feature columns), as in 64,140."
        )
    task = Task(model, loss_fn, Graphs(blocks=(1,) * shape[1], nodes=NODES), classes, graph_step(loss_fn))
    _check_reads(model, shape[1])
    probed = _gradient(model, task, local, 0)
    findings = [
        *_node_findings(model, shape),
        *_head_findings(model, batch_size),
        *_label_findings(model, batch_size, local, probed),
        *mode_findings(model, local),
        *parameter_findings(model, probed),
    ]
    return Diagnosis(tuple(findings), type(model).__name__, batch_size, local.mode, shape)


def _node_findings(model: GraphNetwork, shape: tuple[int, ...]) -> Iterator[Finding]:
    for number, layer in enumerate(model.message_layers):
        if not layer.weight.requires_grad:
            continue
        width = min(layer.weight.shape)
        what = "neighbourhood means" if isinstance(layer, GraphConvolution) else "inputs"
        whose = "nodes" if number == 0 else "neighbourhoods" if number == 1 else "wider neighbourhoods"
        told = (
            f"The row space of this layer's gradient is that of the nodes' {what}: the {whose} that lie in it are "
            f"those of the private graphs, as long as fewer than {width} kinds of them occur."
        )
        if width <= shape[0]:
            told += f" Graphs may have {shape[0]} nodes here, so the largest may be out of reach."
        yield Finding("node-span", "critical", f"layers.{number}", told, WIDER)


def _head_findings(model: GraphNetwork, batch_size: int) -> Iterator[Finding]:
    if _last_bias(model) is None:
        yield Finding(
            "nodes-uncounted", "info", "readout",
            "The last layer sends no bias gradient, without which attack 'grain' cannot count nodes: kinds of nodes "
            "leak, whole graphs do not by this way.",
        )  # fmt: skip
    elif model.pool_first:
        yield Finding(
            "pooled-embedding", "warning", "readout",
            "The read-out sees the mean embedding of a graph. Nodes are counted in the gradient of the layer before "
            "the last: whole graphs of up to about 25 nodes still follow from a gradient of one graph.",
            "send the update of several graphs, which attack 'grain' does not take apart behind such a head.",
        )  # fmt: skip
    else:
        graphs = "the graph" if batch_size == 1 else f"{batch_size} graphs"
        yield Finding(
            "nodes-counted", "critical", "readout",
            f"Every node is read out by itself, so the gradient is linear in how many nodes have each neighbourhood, "
            f"and least squares count them: {graphs} can be listed with all others that have the same gradient.",
            "several local steps an update, or noise; a read-out of the mean embedding protects large graphs only.",
        )  # fmt: skip


def _label_findings(
    model: GraphNetwork, batch_size: int, local: LocalTraining, probed: Observation
) -> Iterator[Finding]:
    if not probed.update.tensors:
        yield NOT_PROBED
        return
    name, classes = _last_bias(model), probed.task.num_classes
    if name is None or model.level != "graph" or batch_size > 1:
        return
    classes = classes or probed.update.tensors[name].numel()
    told = [_gradient(model, probed.task, local, label).update.tensors.get(name) for label in range(classes)]
    if all(bias is not None and int(bias.argmin()) == label for label, bias in enumerate(told)):
        yield Finding(
            "labels", "critical", name.rpartition(".")[0],
            "The label is the smallest entry of the last bias's gradient: it is known exactly.",
            "larger batches, or several local steps.",
        )  # fmt: skip


def _check_reads(model: GraphNetwork, width: int) -> None:
    fields = _path(model, width, 0)
    try:
        with torch.no_grad():
            model(fields["features"], fields["adjacency"], fields["present"])
    except RuntimeError as error:
        raise InvalidValueError(
            f"The model cannot read graphs of {width} feature columns: {str(error).splitlines()[0]}. Check input_shape."
        ) from error


def _last_bias(model: GraphNetwork) -> str | None:
    """The name of the bias of the read-out's last layer, where it is trained."""
    last = next((m for m in reversed(list(model.readout.modules())) if isinstance(m, nn.Linear)), None)
    return next(
        (n for n, p in model.named_parameters() if last is not None and p is last.bias and p.requires_grad), None
    )


def _gradient(model: GraphNetwork, task: Task, local: LocalTraining, label: int) -> Observation:
    """One gradient on a path of random nodes with this label."""
    width = model.message_layers[0].weight.shape[1]
    return probe(task, _path(model, width, label), local, torch.Generator().manual_seed(0))


def _path(model: GraphNetwork, width: int, label: int) -> dict[str, Tensor]:
    like = next(model.parameters())
    features = torch.randn(1, NODES, width, generator=torch.Generator().manual_seed(0)).to(like)
    adjacency = torch.diag(torch.ones(NODES - 1), 1).to(like)
    shape = (1, NODES) if model.level == "node" else (1,)
    return {
        "features": features,
        "adjacency": (adjacency + adjacency.T)[None],
        "present": torch.ones(1, NODES, dtype=torch.bool, device=like.device),
        "labels": torch.full(shape, label, device=like.device),
    }
