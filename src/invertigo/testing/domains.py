"""The contract of a domain, one small check each."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from invertigo.testing import state
from invertigo.testing.contract import demand
from invertigo.types import Batch, Domain, Metric, Scores

PNG = b"\x89PNG\r\n\x1a\n"


def domain_checks() -> tuple[Callable[..., None], ...]:
    """Every check as `check(domain, truth=None)`; ready for `pytest.mark.parametrize`."""
    return (
        check_facts,
        check_truth_scores_best,
        check_matching_undoes_a_permutation,
        check_baselines,
        check_identification,
        check_pictures,
        check_nothing_is_written_to,
    )


def check_domain(domain: Any, truth: Batch | None = None) -> None:
    """Run every check on a domain instance. Raises: ContractError.

    `truth` holds at least three different examples; without it they are drawn uniformly between the bounds.
    """
    for check in domain_checks():
        check(domain, truth)


def check_facts(domain: Any, truth: Batch | None = None) -> None:
    """Names, fields, bounds that enclose something, and metrics with distinct names."""
    demand(isinstance(domain, Domain), f"{type(domain).__name__} lacks a member of invertigo.types.Domain.")
    demand(domain.inputs in domain.example_shapes(), f"example_shapes() must hold the model's input '{domain.inputs}'.")
    demand(domain.inputs != domain.target, "inputs and target must be two fields.")
    demand(domain.metrics and all(isinstance(m, Metric) for m in domain.metrics), "metrics must hold Metrics.")
    names = [metric.name for metric in domain.metrics]
    demand(len(set(names)) == len(names), f"Two metrics share a name: {names}.")
    for name, shape in domain.example_shapes().items():
        low, high = domain.bounds(name)
        demand((low < high).all(), f"bounds('{name}') enclose nothing: {low.flatten()[:3]} to {high.flatten()[:3]}.")
        reach = torch.broadcast_shapes(low.shape, high.shape, shape)
        demand(tuple(reach) == tuple(shape), f"bounds('{name}') do not broadcast to one example {tuple(shape)}.")


def check_truth_scores_best(domain: Any, truth: Batch | None = None) -> None:
    """By every metric the truth itself is a better reconstruction than another draw; one score an example."""
    truth, other = truth or draw(domain, 4, 1), draw(domain, 4 if truth is None else len(truth), 2)
    right, wrong = domain.score(truth, truth.fields), domain.score(truth, {**truth.fields, **other.fields})
    for metric in domain.metrics:
        for scores in (right, wrong):
            _demand_per_example(scores, metric.name, len(truth))
        sign = 1 if metric.privacy_loss else -1
        better = sign * right.mean(metric.name) > sign * wrong.mean(metric.name)
        demand(better, f"By {metric.name} a random draw ({wrong.mean(metric.name):.3g}) is as good as the truth "
                       f"({right.mean(metric.name):.3g}).")  # fmt: skip


def check_matching_undoes_a_permutation(domain: Any, truth: Batch | None = None) -> None:
    """The order of the reconstruction does not matter, and `matching` says which one was paired with which."""
    truth = truth or draw(domain, 4, 1)
    order = torch.arange(len(truth)).roll(1)
    plain, mixed = domain.score(truth, truth.fields), domain.score(truth, truth.select(order).fields)
    demand(torch.equal(order[mixed.matching.cpu()], torch.arange(len(truth))),
           f"The truth in the order {order.tolist()} was matched as {mixed.matching.tolist()}.")  # fmt: skip
    for name, expected in plain.per_example.items():
        kept = torch.allclose(mixed.per_example[name], expected)
        demand(kept, f"{name} depends on the order of the reconstruction.")


def check_baselines(domain: Any, truth: Batch | None = None) -> None:
    """There is a guess without the update, each with every score, and none as good as the truth."""
    truth, public = truth or draw(domain, 4, 1), draw(domain, 8, 3)
    headline = domain.metrics[0]
    best = domain.score(truth, truth.fields).mean(headline.name)
    found = domain.baselines(truth, public)
    demand(found and domain.baselines(truth, None), "A domain needs a baseline, with public data and without.")
    for name, scores in found.items():
        for metric in domain.metrics:
            _demand_per_example(scores, metric.name, len(truth))
        worse = scores.mean(headline.name) < best if headline.privacy_loss else scores.mean(headline.name) > best
        demand(worse, f"Baseline '{name}' scores like the truth, so it must have read it.")


def check_identification(domain: Any, truth: Batch | None = None) -> None:
    """The truth comes first in a line-up of itself; ranks run from 1 to the number of decoys and one."""
    truth, decoys = truth or draw(domain, 4, 1), draw(domain, 20, 3)
    right = domain.identify(truth, truth.fields, decoys)
    demand(right.identified.all(), f"The truth is not first among decoys when it was rebuilt exactly: {right.ranks}.")
    wrong = domain.identify(truth, {**truth.fields, **draw(domain, len(truth), 5).fields}, decoys)
    demand(wrong.ranks.shape == (len(truth),), f"ranks is {tuple(wrong.ranks.shape)}, not one an example.")
    inside = (wrong.ranks >= 1).all() and (wrong.ranks <= wrong.decoys + 1).all()
    demand(inside, f"Ranks among {wrong.decoys} decoys cannot be {wrong.ranks.tolist()}.")


def check_pictures(domain: Any, truth: Batch | None = None) -> None:
    """`render` gives one PNG an example."""
    truth = truth or draw(domain, 4, 1)
    drawn = domain.render(truth.fields)
    demand(len(drawn) == len(truth), f"{len(drawn)} pictures were drawn of {len(truth)} examples.")
    demand(all(picture.startswith(PNG) for picture in drawn), "render must return PNG files.")


def check_nothing_is_written_to(domain: Any, truth: Batch | None = None) -> None:
    """Scoring reads: batches, the domain and the global random states stay as they are."""
    truth, other, public = truth or draw(domain, 4, 1), draw(domain, 4, 2), draw(domain, 8, 3)
    batches = (truth, other, public)
    before = [state.of_batch(batch) for batch in batches], state.of_process(), copy.deepcopy(domain)
    domain.score(truth, other.fields)
    domain.baselines(truth, public)
    domain.identify(truth, other.fields, public)
    domain.render(other.fields)
    for batch, kept in zip(batches, before[0]):
        demand(not state.changes(kept, state.of_batch(batch)), "Scoring wrote to a batch.")
    moved = state.changes(before[1], state.of_process())
    demand(not moved, f"Scoring changed {', '.join(moved)}.")
    demand(domain == before[2], "Scoring changed the domain itself; make it a frozen dataclass.")


def draw(domain: Any, n: int, seed: int) -> Batch:
    """`n` examples uniform between the bounds, with labels 0."""
    generator = torch.Generator().manual_seed(seed)
    fields: dict[str, torch.Tensor] = {domain.target: torch.zeros(n, dtype=torch.long)}
    for name, shape in domain.example_shapes().items():
        low, high = domain.bounds(name)
        fields[name] = low + (high - low) * torch.rand(n, *shape, generator=generator, dtype=low.dtype)
    return Batch(fields)


def _demand_per_example(scores: Scores, metric: str, n: int) -> None:
    demand(metric in scores.per_example, f"The score '{metric}' is missing; there are {[*scores.per_example]}.")
    shape = tuple(scores.per_example[metric].shape)
    demand(shape == (n,), f"'{metric}' has the shape {shape} for {n} examples; it must be one score each.")
