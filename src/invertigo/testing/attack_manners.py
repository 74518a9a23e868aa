"""What an attack leaves alone, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch

from invertigo.testing import state
from invertigo.testing.cases import Case
from invertigo.testing.contract import ContractError, demand
from invertigo.testing.running import case_of, instance_of, run
from invertigo.types import Knowledge, LocalTraining, Observation, Requirement, RequirementError, Update, duplicate


def check_restores_state(attack: Any, case: Case | None = None) -> None:
    """Modes, parameters, gradients, `requires_grad`, buffers, hooks and all global random states come back."""
    attack, case = instance_of(attack), case_of(attack, case)
    observation = _with_own_model(case.observation)
    model = observation.task.model
    model.train()
    next(model.children(), model).eval()  # mixed modes, as fine-tuning leaves them
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number))
    before = state.of_model(model) | state.of_process()
    run(attack, observation)
    changed = state.changes(before, state.of_model(model) | state.of_process())
    demand(not changed, f"Attack '{attack.name}' changed {'; '.join(changed[:5])} and did not change it back.")
    seeded = state.seeds_python(lambda: run(attack, observation))
    demand(not seeded, f"Attack '{attack.name}' seeds Python's global random state.")


def check_observation_untouched(attack: Any, case: Case | None = None) -> None:
    """The adversary's tensors are evidence: not one of them is written to."""
    attack, case = instance_of(attack), case_of(attack, case)
    before = state.of_observation(case.observation)
    run(attack, case.observation)
    changed = state.changes(before, state.of_observation(case.observation))
    demand(not changed, f"Attack '{attack.name}' wrote to {', '.join(changed[:5])}.")


def check_refuses_unmet_requirements(attack: Any, case: Case | None = None) -> None:
    """Without something it requires, an attack raises RequirementError instead of guessing."""
    attack, case = instance_of(attack), case_of(attack, case)
    for requirement in sorted(attack.requires, key=lambda r: r.name):
        poorer = without(case.observation, requirement)
        if requirement in poorer.unmet(attack.requires):
            _demand_refusal(attack, poorer, f"although the adversary does not {requirement.value}")


def check_refuses_other_domains(attack: Any, case: Case | None = None) -> None:
    """An observation of a kind of data that it does not name is refused."""
    attack, case = instance_of(attack), case_of(attack, case)
    foreign = copy.copy(case.observation.task.domain)
    object.__setattr__(foreign, "name", "something_else")
    task = dataclasses.replace(case.observation.task, domain=foreign)
    _demand_refusal(attack, dataclasses.replace(case.observation, task=task), "of a domain that it does not name")


def without(observation: Observation, requirement: Requirement) -> Observation:
    """The same observation by an adversary who does not meet `requirement`."""
    known = observation.knowledge
    if requirement is Requirement.SINGLE_GRADIENT:
        rate = observation.local.learning_rate
        difference = {name: -rate * g for name, g in observation.update.tensors.items()}
        local = LocalTraining(mode=observation.local.mode, sends="difference", learning_rate=rate)
        return dataclasses.replace(observation, update=Update(difference, "difference"), local=local)
    lost: dict[Requirement, dict[str, Any]] = {
        Requirement.BATCH_SIZE: {"num_examples": None, "labels": None},
        Requirement.LABELS: {"num_examples": observation.num_examples, "labels": None},
        Requirement.BATCH_STATISTICS: {"batch_statistics": None},
        Requirement.PUBLIC_DATA: {"public": None},
        Requirement.NODE_COUNTS: {"fields": {}},
        Requirement.CRAFTED_MODEL: {"plant": None},
    }
    poorer: Knowledge = dataclasses.replace(known, **lost[requirement])
    return dataclasses.replace(observation, knowledge=poorer)


def _demand_refusal(attack: Any, observation: Observation, circumstance: str) -> None:
    try:
        run(attack, observation)
    except RequirementError:
        return
    raise ContractError(
        f"Attack '{attack.name}' took an observation {circumstance}; call invertigo.types.check_requirements first."
    )


def _with_own_model(observation: Observation) -> Observation:
    task = dataclasses.replace(observation.task, model=duplicate(observation.task.model))
    return dataclasses.replace(observation, task=task)
