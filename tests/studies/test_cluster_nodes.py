"""What a Ray cluster does with a node that would compute something else: a cluster made of two pretended nodes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from grids import study

from invertigo.studies import cluster
from invertigo.studies.cells import Job, Outcome
from invertigo.studies.cluster import Ray
from invertigo.studies.expansion import expand
from invertigo.studies.spec import Resources
from invertigo.types import ConfigurationError

GOOD, BAD = "0a" * 28, "0b" * 28  # as long as Ray has them


class Pretended:
    """As much of Ray as the executor calls. Jobs go to the bad node whenever nobody forbids it: it fails fastest."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self, there: Callable[[str, Job], Outcome]) -> None:
        self.there, self.calls, self.surroundings = there, [], []

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": node, "Alive": True, "Resources": {"CPU": 1}} for node in (GOOD, BAD)]

    def remote(self, **_: Any) -> Callable[..., Any]:
        return lambda _: self.handle(BAD)

    def handle(self, node: str) -> Any:
        def options(scheduling_strategy: Any) -> Any:
            return self.handle(scheduling_strategy.node_id)

        def remote(url: str, job: Job, threads: int, surroundings: Any) -> int:
            self.surroundings.append(surroundings)
            self.calls.append((node, job))
            return len(self.calls) - 1

        return SimpleNamespace(options=options, remote=remote)

    def wait(self, references: list[int], num_returns: int) -> tuple[list[int], list[int]]:
        return references[:1], references[1:]

    def get(self, reference: int) -> tuple[str, Outcome]:
        node, job = self.calls[reference]
        return node, self.there(node, job)


@pytest.fixture
def nodes(monkeypatch):
    pytest.importorskip("ray")

    def make(there: Callable[[str, Job], Outcome]) -> tuple[Ray, Pretended, list[str]]:
        pretended, said = Pretended(there), []
        monkeypatch.setattr(cluster, "require", lambda *_: pretended)
        return Ray("memory://x", Resources(), say=said.append), pretended, said

    return make


JOBS = [Job(cell) for cell in expand(study(seeds=[0, 1]))]


def through(where: Ray) -> list[Outcome]:
    found = []
    for job in JOBS:
        where.submit(job)
        found.append(where.next()[1])
    return found


def test_a_node_with_other_code_gets_no_cell_and_is_told_of_once(nodes):
    def there(node: str, job: Job) -> Outcome:
        return (
            Outcome("unfit", error="invertigo is not what this cell was named after")
            if node == BAD
            else Outcome("done")
        )

    where, pretended, said = nodes(there)
    assert [one.status for one in through(where)] == ["done"] * len(JOBS)
    assert [node for node, _ in pretended.calls].count(BAD) == 1
    assert len(said) == 1
    assert said[0].startswith(f"node {BAD[:12]} is set aside: invertigo is not")


def test_a_node_that_fails_what_others_pass_swallows_nothing_and_is_set_aside(nodes):
    def there(node: str, job: Job) -> Outcome:
        return Outcome("failed", error="no such data") if node == BAD else Outcome("done")

    where, pretended, said = nodes(there)
    assert [one.status for one in through(where)] == ["done"] * len(JOBS)
    assert [node for node, _ in pretended.calls].count(BAD) == cluster.SUSPICIOUS
    assert said == [f"node {BAD[:12]} is set aside: cells fail there that pass on others: no such data"]


def test_a_cell_that_fails_everywhere_is_a_failed_cell_and_no_nodes_fault(nodes):
    where, pretended, said = nodes(lambda node, job: Outcome("failed", error="its own fault"))
    assert [one.status for one in through(where)] == ["failed"] * len(JOBS)
    assert {node for node, _ in pretended.calls} == {GOOD, BAD}
    assert (said, where.aside) == ([], {})


def test_without_a_fit_node_the_study_ends_and_says_why(nodes):
    where, _, _ = nodes(lambda node, job: Outcome("unfit", error="torch is another"))
    with pytest.raises(ConfigurationError, match=r"No node of the cluster is left.*torch is another"):
        through(where)


def test_workers_look_for_data_and_modules_where_this_process_does(nodes, monkeypatch, tmp_path):
    monkeypatch.setenv("INVERTIGO_DATA", "/sets")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("/my/modules")
    where, pretended, _ = nodes(lambda node, job: Outcome("done"))
    through(where)
    sent = pretended.surroundings[0]
    monkeypatch.setenv("INVERTIGO_DATA", "/others")
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "path", ["/usr/lib/x"])
    sent.take_on()
    assert (os.environ["INVERTIGO_DATA"], Path.cwd()) == ("/sets", tmp_path)
    assert "/my/modules" in sys.path
