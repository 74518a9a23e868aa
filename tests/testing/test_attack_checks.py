"""The checks themselves: a good attack passes them all, and each broken one fails the check made for it."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy
import pytest
import torch

from invertigo import testing
from invertigo.testing import ContractError, attack_checks, check_attack
from invertigo.types import (
    INVERTIGO,
    Observation,
    Paper,
    Reconstruction,
    Requirement,
    Tick,
    check_requirements,
)


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Reads the picture off the first layer: each row of its weight gradient is the picture times the bias gradient."""

    row: int = 0

    name: ClassVar[str] = "ratio"
    paper: ClassVar[Paper] = INVERTIGO
    requires: ClassVar[frozenset[Requirement]] = frozenset({Requirement.BATCH_SIZE, Requirement.SINGLE_GRADIENT})
    domains: ClassVar[frozenset[str]] = frozenset({"images"})
    exact: ClassVar[bool] = True

    def reconstruct(self, observation: Observation, *, generator: torch.Generator, progress=None) -> Reconstruction:
        check_requirements(self, observation)
        return signed(observation, solve(observation, self.row))


def solve(observation: Observation, row: int = 0) -> torch.Tensor:
    weight, bias = observation.update.tensors["1.weight"], observation.update.tensors["1.bias"]
    return (weight[row] / bias[row]).view(1, *observation.task.domain.example_shapes()["images"])


def signed(observation: Observation, images: torch.Tensor, name: str = "ratio") -> Reconstruction:
    return Reconstruction({"images": images}, name, 0.0, "exact", 0.0)


def broken(reconstruct: Any = None, *, refuse: bool = True, **facts: Any) -> Any:
    """`Ratio` with another method or other facts; its requirements are still checked, unless `refuse` is off."""

    def method(self, observation, *, generator, progress=None):
        if refuse:
            check_requirements(self, observation)
        return reconstruct(observation, generator, progress)

    members = facts | ({"reconstruct": method} if reconstruct else {})
    return type("Broken", (Ratio,), {"__doc__": "A broken attack.", **members})


def test_a_good_attack_passes_as_class_and_as_instance():
    check_attack(Ratio)
    check_attack(Ratio(row=3))


def test_every_check_is_listed_once_and_documented():
    names = [check.__name__ for check in attack_checks()]
    assert len(set(names)) == len(names) >= 10
    assert all(check.__doc__ for check in attack_checks())


def fails(check: str, attack: Any, match: str = "") -> None:
    chosen = {c.__name__: c for c in attack_checks()}[check]
    with pytest.raises(ContractError, match=match):
        chosen(attack)


# --- what it says about itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "match"),
    [
        ({"name": None}, "name must be a class-level str"),
        ({"name": "My Attack"}, "lower_case_words"),
        ({"name": ""}, "lower_case_words"),
        ({"paper": "Doe 2020"}, "paper must be a class-level Paper"),
        ({"paper": dataclasses.replace(INVERTIGO, title="")}, "paper is incomplete"),
        ({"requires": {Requirement.LABELS}}, "requires must be a class-level frozenset"),
        ({"requires": frozenset({"labels"})}, "must hold Requirements"),
        ({"domains": frozenset()}, "domains is empty"),
        ({"domains": frozenset({"imagse"})}, r"names \['imagse'\]"),
        ({"exact": "no"}, "exact must be a class-level bool"),
        ({"__doc__": None}, "no docstring"),
    ],
)
def test_incomplete_metadata_is_found(facts, match):
    fails("check_metadata", broken(**facts), match)


def test_a_mutable_attack_is_found():
    @dataclass(kw_only=True)
    class Mutable:
        steps: int = 1

    fails("check_form", Mutable, "must be frozen")


def test_positional_hyperparameters_are_found():
    @dataclass(frozen=True)
    class Positional:
        steps: int = 1

    fails("check_form", Positional, "keyword-only")


def test_a_hyperparameter_without_default_is_found():
    @dataclass(frozen=True, kw_only=True)
    class Demanding:
        steps: int

    fails("check_form", Demanding, "needs a default")


def test_a_plain_class_is_found():
    class Plain:
        pass

    fails("check_form", Plain, "must be a dataclass")


def test_a_positional_generator_is_found():
    class Loose(Ratio):
        def reconstruct(self, observation, generator, progress=None):  # type: ignore[override]
            return signed(observation, solve(observation))

    fails("check_form", Loose, "must take generator as a keyword")


# --- what it gives back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rebuilt", "match"),
    [
        (lambda o: {"pictures": solve(o)}, "lacks the field 'images'"),
        (lambda o: {"images": solve(o)[0]}, r"'images' is \(1, 16, 16\)"),
        (lambda o: {"images": solve(o) / 0}, "NaN or Inf"),
        (lambda o: {"images": solve(o).requires_grad_()}, "still requires a gradient"),
        (lambda o: {"images": solve(o).float()}, "torch.float32"),
    ],
)
def test_a_wrong_result_is_found(rebuilt, match):
    def attack(observation, generator, progress):
        return dataclasses.replace(signed(observation, solve(observation)), fields=rebuilt(observation))

    fails("check_result", broken(attack), match)


@pytest.mark.parametrize(
    ("story", "match"),
    [
        ({"attack": "someone_else"}, "signed 'someone_else'"),
        ({"stopped": "done"}, "stopped is 'done'"),
        ({"seconds": -1.0}, "makes no sense"),
        ({"objective": float("nan")}, "makes no sense"),
        ({"trace": ((5, 1.0), (2, 0.5))}, "trace must go forward"),
    ],
)
def test_a_wrong_story_is_found(story, match):
    def attack(observation, generator, progress):
        return dataclasses.replace(signed(observation, solve(observation)), **story)

    fails("check_result", broken(attack), match)


def test_an_attack_that_reads_nothing_is_found():
    def attack(observation, generator, progress):
        return signed(observation, torch.full_like(solve(observation), 0.5))

    fails("check_beats_mid_grey", broken(attack), "no better than")


def test_noise_is_found():
    def attack(observation, generator, progress):
        return signed(observation, torch.rand(1, 1, 16, 16, generator=generator, dtype=torch.float64))

    fails("check_beats_mid_grey", broken(attack), "no better than")


def test_randomness_from_elsewhere_is_found():
    def attack(observation, generator, progress):
        return signed(observation, solve(observation) + 1e-9 * torch.rand(1))

    fails("check_reproducible", broken(attack), "gives another")


def test_memory_of_the_last_call_is_found():
    calls = []

    def attack(observation, generator, progress):
        calls.append(1)
        return signed(observation, solve(observation, row=len(calls)))

    fails("check_reproducible", broken(attack), "when called again")


def test_an_attack_that_ignores_a_request_to_stop_is_found():
    def attack(observation, generator, progress):
        for done in range(3):
            if progress:
                progress(Tick(done, 3, 0.0, 0.0, 0.0))
        return signed(observation, solve(observation))

    fails("check_stops_when_asked", broken(attack), "2 times more")


# --- what it leaves alone -----------------------------------------------------------------------------------------


def seeds_globally(observation):
    torch.manual_seed(0)


def seeds_numpy(observation):
    numpy.random.seed(0)


def seeds_python(observation):
    random.seed(0)


def draws_globally(observation):
    torch.rand(1)


def leaves_eval_mode(observation):
    observation.task.model.eval()


def leaves_train_mode_everywhere(observation):
    observation.task.model.train()


def freezes(observation):
    next(observation.task.model.parameters()).requires_grad_(False)


def clears_gradients(observation):
    observation.task.model.zero_grad()


def trains(observation):
    with torch.no_grad():
        next(observation.task.model.parameters()).add_(1e-12)


def registers_a_buffer(observation):
    observation.task.model.register_buffer("cache", torch.zeros(1))


def leaves_a_hook(observation):
    observation.task.model[1].register_forward_hook(lambda *_: None)


def switches_the_default_dtype(observation):
    torch.set_default_dtype(torch.float64)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (seeds_globally, "PyTorch's global random state"),
        (draws_globally, "PyTorch's global random state"),
        (seeds_numpy, "NumPy's global random state"),
        (seeds_python, "seeds Python's global random state"),
        (leaves_eval_mode, r"mode \(train or eval\) of the model"),
        (leaves_train_mode_everywhere, "mode .* of module '0'"),
        (freezes, "requires_grad of parameter '1.weight'"),
        (clears_gradients, "the .grad of parameter '1.weight'"),
        (trains, "parameter '1.weight'"),
        (registers_a_buffer, "buffer 'cache'"),
        (leaves_a_hook, "the hooks of module '1'"),
        (switches_the_default_dtype, "default_dtype"),
    ],
)
def test_what_is_not_put_back_is_found(harm, match):
    def attack(observation, generator, progress):
        harm(observation)
        return signed(observation, solve(observation))

    with torch.random.fork_rng():
        try:
            fails("check_restores_state", broken(attack), match)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda o: o.update.tensors["1.weight"].mul_(2), r"update.tensors\['1.weight'\]"),
        (lambda o: o.parameters["3.bias"].zero_(), r"parameters\['3.bias'\]"),
    ],
)
def test_writing_to_the_evidence_is_found(harm, match):
    def attack(observation, generator, progress):
        images = solve(observation)
        harm(observation)
        return signed(observation, images)

    fails("check_observation_untouched", broken(attack), match)


# --- what it refuses ----------------------------------------------------------------------------------------------


PASSIVE = [requirement for requirement in Requirement if requirement is not Requirement.CRAFTED_MODEL]


@pytest.mark.parametrize("requirement", PASSIVE)
def test_ignoring_a_requirement_is_found(requirement):
    def attack(observation, generator, progress):
        return signed(observation, solve(observation))

    careless = broken(attack, refuse=False, requires=frozenset({requirement}))
    fails("check_refuses_unmet_requirements", careless, requirement.value)


@pytest.mark.parametrize("requirement", PASSIVE)
def test_refusing_a_requirement_passes(requirement):
    careful = broken(requires=frozenset({requirement}))
    for check in attack_checks():
        check(careful)


def test_requiring_a_crafted_model_without_planting_one_is_found():
    fails("check_form", broken(requires=frozenset({Requirement.CRAFTED_MODEL})), "needs a method that plants it")


def test_accepting_another_kind_of_data_is_found():
    def attack(observation, generator, progress):
        return signed(observation, solve(observation))

    fails("check_refuses_other_domains", broken(attack, refuse=False), "does not name")


def test_an_attack_on_something_else_needs_its_own_case():
    with pytest.raises(ContractError, match="pass case=Case"):
        testing.easy_case(broken(domains=frozenset({"text"})))


def test_the_easy_case_says_no_more_than_the_attack_asks_for():
    known = testing.easy_case(Ratio).observation.knowledge
    assert known.num_examples == 1
    assert known.labels is None
    assert known.public is None
    assert known.batch_statistics is None
