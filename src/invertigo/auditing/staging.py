"""From a written scenario to a client with a model and private data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invertigo import data, models
from invertigo.auditing.case import Case, prepared
from invertigo.auditing.graph_cases import check_reads, graph_domain, graph_remarks, known_fields, read_graphs
from invertigo.auditing.guarded import GuardTrial, adversaries, moments
from invertigo.auditing.lineup import as_batch
from invertigo.auditing.protection import check_protects, make_defense
from invertigo.auditing.scenario import Scenario
from invertigo.auditing.trial import generator_for
from invertigo.auditing.utility import TrialRun
from invertigo.data import GraphSet, ImageSet
from invertigo.domains import Graphs, Images
from invertigo.evaluation import Reader, train_reader
from invertigo.federation import train_locally
from invertigo.guards.simulation import Setting
from invertigo.types import (
    Batch,
    ConfigurationError,
    Defense,
    InvalidValueError,
    LocalTraining,
    Task,
    check_fits,
    duplicate,
)

TRAINING = LocalTraining(
    sends="difference", learning_rate=0.05, momentum=0.9, batch_size=32, epochs=1, shares_buffers=True
)
"""How a model is trained on public data before an audit with `model.trained_epochs`."""


READER_EXAMPLES = 2000
"""Most examples that an independent reader is trained on."""


def stage(scenario: Scenario, *, trained: Mapping[str, Tensor] | None = None, defense: Defense | None = None) -> Case:
    """Load the data, draw the private examples, build (and perhaps train) the model that the defense prepared.

    Args:
        trained: the state dict that `model.trained_epochs` would lead to, from an earlier staging of the same model.
        defense: in place of the scenario's.
    """
    if defense is None and scenario.defended is not None:
        defense = make_defense(scenario.defended.model_dump())
    images = _load(scenario)
    if defense is not None:
        check_protects(defense, Graphs.name if isinstance(images, GraphSet) else Images.name)
    drawn = _drawn_indices(scenario, images)
    private = drawn[scenario.data.skip :][: _wanted(scenario)]
    rest = _public(scenario, images.others(drawn)) if len(drawn) < len(images) else None
    domain = graph_domain(scenario, rest, images) if isinstance(images, GraphSet) else _domain(scenario, rest or images)
    dtype = getattr(torch, scenario.dtype)
    public = None if rest is None else as_batch(rest, domain).to(scenario.device, dtype)
    truth = as_batch(_part(images, private[: _own(scenario, private)]), domain)
    plain = _task(_model(scenario, images, dtype), domain, images.num_classes)
    task = plain if defense is None else prepared(defense, plain, public, scenario.seed)
    # Before the model is trained: a defense must be able to learn from the start.
    trial = _trial(scenario, images.others(drawn), plain, task)
    if trained is None:
        _pretrain(task, scenario, public)
    else:
        check_fits(trained, task.model.state_dict(), "trained model")
        task.model.load_state_dict(dict(trained))
    return Case(
        task=task,
        local=scenario.local.build(),
        truth=truth.to(scenario.device, dtype),
        public=public,
        lineup=public,
        others=[b.to(scenario.device, dtype) for b in _other_clients(scenario, images, private, domain)],
        defense=defense,
        replaces_task=task is not plain,
        releases=scenario.adversary.releases,
        trial=trial,
        guarded=_guarded(scenario, images.others(drawn), task),
        reader=_reader(scenario, images.others(drawn), domain),
        title=scenario.title,
        private=scenario.private if scenario.private is not None else not images.bundled,
        facts=scenario.resolved(),
        known=known_fields(scenario, truth),
        remarks=graph_remarks(task, truth) if isinstance(domain, Graphs) else (),
    )


def _task(model: nn.Module, domain: Images | Graphs, classes: int) -> Task:
    if isinstance(domain, Graphs):
        return models.graph_task(model, domain, classes)
    return Task(model, F.cross_entropy, domain, classes)


def _reader(scenario: Scenario, images: ImageSet | GraphSet, domain: Images | Graphs) -> Reader | None:
    """A classifier of clean images that are not private and, as far as there are others, not public."""
    if not scenario.reader_epochs:
        return None
    if isinstance(images, GraphSet) or isinstance(domain, Graphs):
        raise ConfigurationError("reader_epochs trains a classifier of rebuilt images; leave it out for graphs.")
    order = torch.randperm(len(images), generator=generator_for(scenario.seed, "public")).flip(0)
    part = as_batch(_part(images, order[:READER_EXAMPLES].tolist()), domain)
    generator = generator_for(scenario.seed, "reader")
    return train_reader(part, domain, images.num_classes, epochs=scenario.reader_epochs, generator=generator)


def _trial(scenario: Scenario, images: ImageSet | GraphSet, plain: Task, task: Task) -> TrialRun | None:
    """The training that shows what the defense costs, on examples that are neither private nor, if possible, public."""
    section = scenario.utility
    if section is None:
        return None
    order = torch.randperm(len(images), generator=generator_for(scenario.seed, "public")).flip(0)
    tested = min(section.test, len(order) // 4)
    parts = order[:tested], order[tested : tested + section.examples]
    if min(map(len, parts)) < 1:
        raise InvalidValueError(
            f"'{images.name}' has {len(images)} examples beside the private ones, too few to train and to test on. "
            "Leave `utility` out, or choose a larger set."
        )
    dtype = getattr(torch, scenario.dtype)
    test, train = (as_batch(_part(images, part.tolist()), plain.domain).to(scenario.device, dtype) for part in parts)  # type: ignore[arg-type]
    start = duplicate(plain.model)
    return TrialRun(
        plain=replace(plain, model=start),
        task=replace(plain, model=start) if task is plain else replace(task, model=duplicate(task.model)),
        data=train,
        test=test,
        local=replace(scenario.local.build(), learning_rate=section.learning_rate),
        rounds=section.rounds,
        clients=section.clients,
        batch_size=section.batch_size,
        dirichlet=section.dirichlet,
        undefended=section.undefended,
    )


def _guarded(scenario: Scenario, images: ImageSet | GraphSet, task: Task) -> GuardTrial | None:
    """The federation in which guards are measured, on examples that are neither private nor, if possible, public."""
    section = scenario.guarded
    if section is None:
        return None
    if not isinstance(images, ImageSet):
        raise ConfigurationError("`guarded` crafts models of images; leave it out for graphs.")
    order = torch.randperm(len(images), generator=generator_for(scenario.seed, "public")).flip(0)[: section.examples]
    setting = Setting(
        clients=section.clients,
        rounds=section.rounds,
        participation=section.participation,
        concentration=section.dirichlet,
        training=scenario.local.build(),
        probe=section.probe,
        seed=scenario.seed,
    )
    examples = as_batch(_part(images, order.tolist()), task.domain).to(scenario.device, getattr(torch, scenario.dtype))
    own = replace(task, model=duplicate(task.model))
    return GuardTrial(own, examples, setting, adversaries(section.campaigns), moments(section.at, section.rounds))


def _load(scenario: Scenario) -> ImageSet | GraphSet:
    section = scenario.data
    images = data.load(section.name, split=section.split, size=section.size, limit=section.limit)
    if isinstance(images, GraphSet):
        return read_graphs(scenario, images)
    if not section.grayscale or images.shape[0] == 1:
        return images
    # ITU-R BT.601 luma, the common choice for one channel out of three.
    weights = images.images.new_tensor([0.299, 0.587, 0.114])
    grey = torch.einsum("nchw,c->nhw", images.images, weights)[:, None]
    return ImageSet(images.name, grey, images.labels, images.classes, images.bundled, images.licence, images.paper)


def _drawn_indices(scenario: Scenario, images: ImageSet | GraphSet) -> list[int]:
    """Every example that may not be public: passed over, the audited client's, the other clients', the pool's rest."""
    section, clients, wanted = scenario.data, scenario.adversary.clients, _wanted(scenario)
    needed = max(section.skip + wanted, section.pool or 0)
    if needed > len(images):
        raise InvalidValueError(
            f"{clients} client(s) with {wanted // clients} examples need {needed}, but '{images.name}' has "
            f"{len(images)}. Lower data.count or adversary.clients."
        )
    order = torch.randperm(len(images), generator=generator_for(scenario.seed, "private")).tolist()
    chosen = list(section.indices or [])
    others = [i for i in order if i not in set(chosen)][: needed - len(chosen)]
    return chosen + others


def _wanted(scenario: Scenario) -> int:
    """How many private examples all clients have together."""
    section = scenario.data
    return (len(section.indices) if section.indices else section.count) * scenario.adversary.clients


def _own(scenario: Scenario, private: Sequence[int]) -> int:
    return len(private) // scenario.adversary.clients


def _other_clients(
    scenario: Scenario, images: ImageSet | GraphSet, private: Sequence[int], domain: Images | Graphs
) -> list[Batch]:
    own = _own(scenario, private)
    parts = [private[start : start + own] for start in range(own, len(private), own)]
    return [as_batch(_part(images, part), domain) for part in parts]


def _part(images: ImageSet | GraphSet, indices: Sequence[int]) -> Any:
    if isinstance(images, GraphSet):
        return images.part(indices)
    index = torch.tensor(list(indices))
    images.batch(index)  # refuses an index that the set does not have
    return ImageSet(
        images.name,
        images.images[index],
        images.labels[index],
        images.classes,
        images.bundled,
        images.licence,
        images.paper,
    )


def _public(scenario: Scenario, rest: ImageSet | GraphSet) -> Any:
    count = min(scenario.data.public_count, len(rest))
    if count == 0:
        return None
    order = torch.randperm(len(rest), generator=generator_for(scenario.seed, "public"))
    return _part(rest, order[:count].tolist())


def _domain(scenario: Scenario, public: ImageSet) -> Images:
    wanted = scenario.normalise
    if wanted is False:
        return Images(public.shape)
    if wanted is True:
        mean, std = public.images.mean((0, 2, 3)), public.images.std((0, 2, 3))
        return Images(public.shape, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    return Images(public.shape, mean=tuple(wanted.mean), std=tuple(wanted.std))


def _model(scenario: Scenario, images: ImageSet | GraphSet, dtype: torch.dtype) -> nn.Module:
    section = scenario.model
    check_reads(section.name, images)
    model = models.resolve(
        section.factory or section.name or "lenet",
        input_shape=images.shape,
        num_classes=images.num_classes,
        generator=generator_for(scenario.seed, "model"),
        **section.options,
    )
    if section.weights:
        models.load_weights(model, section.weights)
    return model.to(scenario.device, dtype)


def _pretrain(task: Task, scenario: Scenario, public: Batch | None) -> None:
    epochs = scenario.model.trained_epochs
    if not epochs:
        return
    if public is None:
        raise ConfigurationError("model.trained_epochs trains on the public examples; set data.public_count above 0.")
    parameters, buffers = dict(task.model.named_parameters()), dict(task.model.named_buffers())
    for epoch in range(epochs):
        generator = generator_for(scenario.seed, "training", epoch)
        order = torch.randperm(len(public), generator=generator)
        update = train_locally(task, public.select(order), TRAINING, generator=generator)
        with torch.no_grad():
            for name, change in update.tensors.items():
                parameters[name].add_(change)
            for name, value in (update.buffers or {}).items():
                buffers[name].copy_(value)
