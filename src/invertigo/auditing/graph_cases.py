"""What is particular to auditing graphs: their domain, which model reads them, and what a reader should know."""

from __future__ import annotations

from typing import Any

from torch import nn

from invertigo import models
from invertigo.auditing.record import FlagRecord
from invertigo.auditing.scenario import Scenario
from invertigo.data import GraphSet, ImageSet
from invertigo.domains import Graphs
from invertigo.types import Batch, ConfigurationError, Task


def read_graphs(scenario: Scenario, graphs: GraphSet) -> GraphSet:
    """The graphs of the wanted sizes. Raises: ConfigurationError for settings that make sense for images only."""
    if scenario.data.grayscale:
        raise ConfigurationError(f"data.grayscale is about colours, and '{graphs.name}' holds graphs; leave it out.")
    return graphs if scenario.data.nodes is None else graphs.sized(*scenario.data.nodes)


def graph_domain(scenario: Scenario, public: GraphSet | None, graphs: GraphSet) -> Graphs:
    """The domain of a scenario's graphs; columns are standardised over the public ones."""
    wanted, places = scenario.normalise, graphs.shape[0]
    if isinstance(wanted, bool):
        return (public or graphs).domain(nodes=places, standardise=wanted)
    mean, std = tuple(wanted.mean), tuple(wanted.std)
    return Graphs(graphs.blocks, places, degree_block=graphs.degree_block, mean=mean, std=std)


def check_reads(model: str | None, data: ImageSet | GraphSet) -> None:
    """Refuse a named model that reads another kind of data. Raises: ConfigurationError."""
    if model is None or model not in models.registry:
        return  # the user's own model: whether it reads the data shows when it trains
    reads = getattr(models.registry[model], "domain", "images")
    kind = "graphs" if isinstance(data, GraphSet) else "images"
    fitting = [name for name in models.registry if getattr(models.registry[name], "domain", "images") == kind]
    if reads != kind:
        raise ConfigurationError(
            f"The model '{model}' reads {reads}, but '{data.name}' holds {kind}. "
            f"Set model.name to one of: {', '.join(fitting)}."
        )


def known_fields(scenario: Scenario, truth: Batch) -> tuple[str, ...]:
    """The fields that the adversary knows beside the labels. Raises: ConfigurationError for one that is not there."""
    for name in scenario.adversary.knows:
        if name not in truth.fields:
            raise ConfigurationError(
                f"adversary.knows names '{name}', which the batch does not hold; it has {', '.join(truth.fields)}."
            )
    return tuple(scenario.adversary.knows)


def graph_remarks(task: Task, truth: Batch) -> tuple[FlagRecord, ...]:
    """Flags about the private graphs and the model's width. Raises: InvalidValueError for graphs nobody can audit."""
    domain = task.domain
    if not isinstance(domain, Graphs):
        return ()
    found = [FlagRecord(code="unusual_graphs", severity="info", message=remark) for remark in domain.validate(truth)]
    nodes = int(truth["present"].sum())
    narrow = {name: width for name, width in _widths(task.model) if width < nodes}
    if narrow:
        name, width = min(narrow.items(), key=lambda item: item[1])
        found.append(
            FlagRecord(
                code="narrow_layers",
                severity="warning",
                message=(
                    f"The layer '{name}' is {width} wide and the batch has {nodes} nodes. An exact attack reads nodes "
                    "off the row space of that layer's gradient, whose rank cannot exceed the width, so where nodes "
                    "are of more kinds than that it cannot tell true ones from false ones."
                ),
                remedy="Audit a wider layer, or fewer nodes, before taking a failed attack for a safe client.",
            )
        )
    return tuple(found)


def _widths(model: nn.Module) -> list[tuple[str, int]]:
    """Output widths of the message-passing layers, which are those of our graph networks."""
    layers: Any = getattr(model, "layers", ())
    linears = [(f"layers.{i}", getattr(layer, "linear", None)) for i, layer in enumerate(layers)]
    return [(name, linear.out_features) for name, linear in linears if isinstance(linear, nn.Linear)]
